"""The configuration saved in an output folder, and what a resumed command may change."""

import io
import json
from pathlib import Path

import pytest
from helpers.example_config import REQUIRED, read

from cli.config import (
    UsageError,
    changed_options,
    differing_options,
    print_config,
    refuse_changed_options,
    save_config,
)


def test_a_saved_configuration_differs_from_itself_in_nothing(tmp_path: Path) -> None:
    config = read(*REQUIRED, "--limit", "3")
    save_config(config, tmp_path / "out" / "config.json")
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved["limit"] == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]
    assert differing_options(config, tmp_path / "out" / "config.json") == []


def test_a_changed_option_is_named_with_old_and_new_value(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    save_config(read(*REQUIRED, "--limit", "3"), path)
    changed = read(*REQUIRED, "--limit", "4", "--threshold", "0.7")
    assert differing_options(changed, path, may_change={"limit"}) == [
        "--threshold was 0.6, is now 0.7"
    ]
    refuse_changed_options(changed, path)  # nothing else is there: that run never began
    (tmp_path / "ledger").touch()
    with pytest.raises(UsageError, match=r"--threshold was 0\.6, is now 0\.7; --limit was 3"):
        refuse_changed_options(changed, path)
    refuse_changed_options(changed, path, may_change={"limit", "threshold"})


def test_a_path_written_differently_is_the_same_path(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    save_config(read("--questions", "q.json", "--out", "out"), path)
    absolute = str(Path("q.json").resolve())
    assert differing_options(read("--questions", absolute, "--out", "./out/"), path) == []
    assert differing_options(read("--questions", "r.json", "--out", "out"), path) == [
        '--questions was "q.json", is now "r.json"'
    ]


def test_an_option_from_before_it_existed_had_its_default(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    old = {"questions": "q.json", "output_dir": "out", "gone": 1}
    path.write_text(json.dumps(old))
    assert differing_options(read(*REQUIRED), path, may_change={"gone"}) == []
    assert differing_options(read(*REQUIRED, "--span", "1", "2"), path) == [
        "--span was [3, 4], is now [1, 2]",
        "--gone was 1, is no longer an option",
    ]


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_saved_configuration_is_a_usage_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match="another --output-dir"):
        differing_options(read(*REQUIRED), tmp_path / "config.json")


def test_credentials_in_a_url_are_neither_printed_nor_saved(tmp_path: Path) -> None:
    config = read(*REQUIRED, "--judge", "openai:m@http://me:hunter2@host/v1?api_key=abc")
    save_config(config, tmp_path / "config.json")
    printed = io.StringIO()
    print_config(config, printed)
    for text in ((tmp_path / "config.json").read_text(), printed.getvalue()):
        assert "hunter2" not in text
        assert "abc" not in text
    assert differing_options(config, tmp_path / "config.json") == []


def test_a_folder_that_was_moved_resumes(tmp_path: Path) -> None:
    """With the old value the run would begin anew, in the old place."""
    path = tmp_path / "config.json"
    save_config(read(*REQUIRED), path)
    moved = read(*REQUIRED, "--out", str(tmp_path))
    assert moved.output_dir == tmp_path
    assert differing_options(moved, path) == []


def test_only_options_that_differ_are_printed() -> None:
    config = read(*REQUIRED, "--limit", "3")
    assert changed_options(config).keys() == {"questions", "output_dir", "limit"}
    printed = io.StringIO()
    print_config(config, printed)
    assert "limit: 3\n" in printed.getvalue()
    assert len(printed.getvalue().splitlines()) == len(changed_options(config))
