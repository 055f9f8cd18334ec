"""The mutation runner: what it calls caught, and what it must not."""

import json
from pathlib import Path

import pytest
from mutations.run import Mutation, drawn, main

pytestmark = pytest.mark.heavy

TEST = (
    "tests/judges/scoring/test_choices.py"
    "::test_a_letter_beyond_the_options_is_no_choice_even_when_it_is_alone"
)
TARGET = "judges/scoring/choices.py"


def write_mutation(
    folder: Path, repository: Path, name: str, old: str, new: str, test: str = TEST
) -> None:
    assert (repository / TARGET).read_text("utf-8").count(old) == 1
    row = {"name": name, "test": test, "file": TARGET, "old": old, "new": new}
    lines = [f"{key} = {json.dumps(value)}" for key, value in row.items()]
    (folder / f"{name}.toml").write_text("\n".join(["[[mutation]]", *lines]) + "\n", "utf-8")


@pytest.mark.slow
def test_only_a_failing_test_counts_as_caught(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "    bare = bare_answer(answer)\n"
    write_mutation(tmp_path, repository, "real", line, "    return 'A'\n")
    write_mutation(tmp_path, repository, "harmless", line, f"{line}    # nothing changes\n")
    write_mutation(tmp_path, repository, "syntax", line, "    bare = = answer\n")
    write_mutation(tmp_path, repository, "stale", line, "    return 'A'\n")
    stale = tmp_path / "stale.toml"
    stale.write_text(stale.read_text("utf-8").replace("bare_answer", "no_such"), "utf-8")

    assert main(["--jobs", "2"], folder=tmp_path) == 1
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "caught" in said["real"]
    assert "SURVIVED" in said["harmless"]
    assert "1 passed" in said["harmless"]
    assert "SURVIVED" in said["syntax"]
    assert "error instead of a failing test" in said["syntax"]
    assert "does not apply" in said["stale"]
    assert main(["real"], folder=tmp_path) == 0


def test_a_test_that_does_not_pass_unchanged_stops_the_run(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "    bare = bare_answer(answer)\n"
    missing = TEST.partition("::")[0] + "::test_that_nobody_wrote"
    write_mutation(tmp_path, repository, "one", line, "    return 'A'\n", test=missing)
    assert main([], folder=tmp_path) == 1
    assert "before the code is broken" in capsys.readouterr().out


def test_a_share_is_drawn_anew_by_each_seed() -> None:
    rows = [Mutation(str(number), TEST, ()) for number in range(40)]
    drawings = [drawn(rows, 0.5, seed) for seed in (1, 1, 2)]
    assert drawings[0] == drawings[1] != drawings[2]
    assert [len(one) for one in drawings] == [20, 20, 20]
    assert {row.name for one in (drawn(rows, 0.5, seed) for seed in range(20)) for row in one} == {
        row.name for row in rows
    }
    assert drawn(rows, 1.0, 3) == rows
    assert len(drawn(rows[:3], 0.01, 3)) == 1


ROW = '[[mutation]]\nname = "a"\ntest = "tests/a.py::b"\nold = "c"\nnew = "d"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ROW.replace('test = "tests/a.py::b"\n', 'file = "judges/x.py"\n'), "a name and a test"),
        (ROW, "each a text"),
        (ROW + 'file = "judges/x.py"\nwhy = "e"\n', "nothing else"),
        (ROW + 'file = "tests/a.py"\n', "the product and its pages only"),
        (f'{ROW}file = "judges/x.py"\n' * 2, "these names stand twice: a"),
        ("[[mutation", "is no TOML"),
    ],
)
def test_a_row_that_names_no_test_or_touches_tests_is_refused(
    tmp_path: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text(text, "utf-8")
    assert main([], folder=tmp_path) == 1
    assert complaint in capsys.readouterr().out


def test_no_mutations_is_no_success(tmp_path: Path) -> None:
    assert main([], folder=tmp_path) == 1
    assert main(["unknown"], folder=tmp_path) == 1
