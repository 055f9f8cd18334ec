"""Wrong input, as a stranger gives it: one sentence that names it, before anything is written."""

import json
from pathlib import Path

import pytest

from cli.config import EXIT_ROWS_FAILED, UsageError
from pipeline.build_cot import main
from pipeline.status import read_status

NOBODY = "openai:m@http://127.0.0.1:9/v1"
GOOD = {
    "problem": "How many?",
    "solution": "2",
    "media": [{"kind": "image", "path": "gone.png"}],
    "problem_type": "numerical",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with question files, good and bad."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "media").mkdir()
    for name, text in {
        "good.jsonl": json.dumps(GOOD),
        "empty.json": "",
        "no_rows.json": "[]",
        "nothing_usable.jsonl": json.dumps(GOOD | {"solution": ""}) + "\n" + json.dumps({}),
        "file": "",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"--questions": "gone.jsonl"}, "no question file at gone.jsonl"),
        ({"--questions": "empty.json"}, "empty.json is empty"),
        ({"--questions": "no_rows.json"}, "holds no questions"),
        (
            {"--questions": "nothing_usable.jsonl"},
            "none of the 2 rows of nothing_usable.jsonl is a question that --format auto can read; "
            "the first, row 0: field 'solution': is empty",
        ),
        ({"--format": "nextgqa"}, "none of the 1 rows .* --format nextgqa can read"),
        ({"--media-root": "gone"}, "--media-root gone is not a folder"),
        ({"--frame-cache": "file"}, r"decoded frames cannot be kept in file \(Not a directory\)"),
        ({"--out": "file"}, "--output-dir file is a file"),
        ({"--judge": "openai:m@localhost:8000"}, "must begin with http:// or https://"),
        ({"--judge": "openai:m@127.0.0.1/v1"}, "must begin with http:// or https://"),
        ({"--judge": "openai:m"}, "needs a key: set the environment variable OPENAI_API_KEY"),
    ],
)
def test_wrong_input_is_named_before_anything_is_written(
    folder: Path, given: dict[str, str], words: str
) -> None:
    options = {
        "--questions": "good.jsonl",
        "--media-root": "media",
        "--out": "out",
        "--generator": NOBODY,
        "--judge": NOBODY,
    } | given
    with pytest.raises(UsageError, match=words):
        main([word for pair in options.items() for word in pair])
    assert not (folder / "out").exists()


def test_an_estimate_that_cannot_be_written_is_reported(folder: Path) -> None:
    argv = ["--questions=good.jsonl", "--media-root=media", "--dry-run", "--out=file/out"]
    with pytest.raises(UsageError, match=r"estimate cannot be written to .*estimate\.json"):
        main([*argv, f"--generator={NOBODY}", f"--judge={NOBODY}"])


def test_lost_rows_are_told_with_count_and_first_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--questions=good.jsonl", "--media-root=media", "--out=out"]
    status = main([*argv, f"--generator={NOBODY}", f"--judge={NOBODY}"])
    assert status == EXIT_ROWS_FAILED
    said = capsys.readouterr().err
    assert "1  media: missing_file   (first: row 0: there is no 'gone.png' under" in said


@pytest.mark.parametrize("text", ["{", "[]", "{}", ""])
def test_progress_that_cannot_be_read_is_said(folder: Path, text: str) -> None:
    (folder / "progress.json").write_text(text)
    with pytest.raises(UsageError, match="cannot be read as the progress of a build"):
        read_status(folder)


def test_the_check_says_as_json_how_columns_of_any_name_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "media" / "a.mp4").write_text("nothing is decoded here")
    (folder / "any.csv").write_text(
        "ask,choices,reply,file\n"
        f"What \x9b?,red|blue,blue,{folder}/media/a.mp4\n"
        "What is it?,red|blue,green,a.mp4\n"
    )
    columns = "problem=ask,options=choices,solution=reply,path=file"
    options = ["--questions", "any.csv", "--media-root", "media", "--columns", columns]
    assert main([*options, "--check", "--json"]) == EXIT_ROWS_FAILED
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["questions"], said["unusable"]) == ("columns", 2, 1)
    first = said["first_row"]
    assert (first["options"], first["solution"]) == (["A. red", "B. blue"], "B")
    assert first["problem"] == "What \x9b?"
    assert first["media"] == [{"kind": "video", "path": "a.mp4"}]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--json"], "--json needs --check"),
        (["--check", "--columns", "problem"], "--columns: expected KEY=COLUMN"),
        (["--check", "--columns", "answer=reply"], "got 'answer=reply'"),
    ],
)
def test_options_of_the_check_that_make_no_sense_are_refused(
    folder: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--questions", "good.jsonl", "--media-root", "media", *words])
    assert sentence in capsys.readouterr().err
