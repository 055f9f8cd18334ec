"""The mutation runner: what it calls caught, and what it must not."""

from difflib import unified_diff
from pathlib import Path

import pytest
from mutations.run import main

TEST = (
    "tests/judges/test_answers_choices.py"
    "::test_a_letter_beyond_the_options_is_no_choice_even_when_it_is_alone"
)
TARGET = "judges/choices.py"


def write_patch(
    folder: Path, repository: Path, name: str, old: str, new: str, test: str = TEST
) -> None:
    before = (repository / TARGET).read_text("utf-8")
    assert before.count(old) == 1
    lines = unified_diff(
        before.splitlines(keepends=True),
        before.replace(old, new).splitlines(keepends=True),
        f"a/{TARGET}",
        f"b/{TARGET}",
    )
    (folder / f"{name}.patch").write_text(f"# fails: {test}\n{''.join(lines)}", "utf-8")


def test_only_a_failing_test_counts_as_caught(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "    bare = bare_answer(answer)\n"
    write_patch(tmp_path, repository, "real", line, "    return 'A'\n")
    write_patch(tmp_path, repository, "harmless", line, f"{line}    # nothing changes\n")
    write_patch(tmp_path, repository, "syntax", line, "    bare = = answer\n")
    write_patch(tmp_path, repository, "stale", line, "    return 'A'\n")
    stale = tmp_path / "stale.patch"
    stale.write_text(stale.read_text("utf-8").replace("bare_answer", "no_such"), "utf-8")

    assert main(["--jobs", "2"], patches=tmp_path) == 1
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "caught" in said["real"]
    assert "SURVIVED" in said["harmless"]
    assert "1 passed" in said["harmless"]
    assert "SURVIVED" in said["syntax"]
    assert "error instead of a failing test" in said["syntax"]
    assert "does not apply" in said["stale"]
    assert main(["real"], patches=tmp_path) == 0


def test_a_test_that_does_not_pass_unchanged_stops_the_run(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "    bare = bare_answer(answer)\n"
    missing = TEST.partition("::")[0] + "::test_that_nobody_wrote"
    write_patch(tmp_path, repository, "one", line, "    return 'A'\n", test=missing)
    assert main([], patches=tmp_path) == 1
    assert "before the code is broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("diff --git a/judges/x.py b/judges/x.py\n", "the first line must be"),
        ("# fails: tests/a.py::b\n--- a/tests/a.py\n+++ b/tests/a.py\n", "product code only"),
        ("# fails: tests/a.py::b\n", "product code only"),
    ],
)
def test_a_patch_that_names_no_test_or_touches_tests_is_refused(
    tmp_path: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.patch").write_text(text, "utf-8")
    assert main([], patches=tmp_path) == 1
    assert complaint in capsys.readouterr().out


def test_no_patches_is_no_success(tmp_path: Path) -> None:
    assert main([], patches=tmp_path) == 1
    assert main(["unknown"], patches=tmp_path) == 1
