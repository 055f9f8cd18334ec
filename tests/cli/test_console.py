"""Text of others is printed as it is: brackets, pictures' names, what acts on a terminal."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.box import SIMPLE_HEAD

from cli.config import UsageError, exit_with_usage_error, say
from cli.console import duration, output_console, plain_table
from pipeline.progress import headline
from train.evaluate import main

HOSTILE = [
    "videos/[test].mp4",
    "videos/[/bold].mp4",
    "[/INST]",
    "[link=http://evil]click[/link]",
    "[redacted]",
    ":cat: and [bold]x",
]
ACTING = {
    "a\x1b[31mred\x1b[0m": "a\\x1b[31mred\\x1b[0m",
    "bell\x07\x9b2J": "bell\\x07\\x9b2J",
    "\u202etxt.exe": "\\u202etxt.exe",
    "half \ud800": "half \\ud800",
}


def printed(*values: object) -> str:
    file = io.StringIO()
    output_console(file=file).print(*values, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_brackets_are_no_markup(name: str) -> None:
    assert printed(name) == f"{name}\n"
    table = plain_table((f"h {name}", "rows"), [(name, "3")], num_texts=1, title=f"of {name}")
    shown = printed(table)
    assert shown.count(name) == 3, shown


@pytest.mark.parametrize(("text", "shown"), ACTING.items())
def test_what_acts_on_a_terminal_is_shown(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(text) == f"{shown}\n"
    assert shown in printed(plain_table(("name",), [(text,)], num_texts=1, box=SIMPLE_HEAD))
    say(f"row 3: {text}", sys.stdout)
    assert capsys.readouterr().out == f"row 3: {shown}\n"
    with pytest.raises(SystemExit):
        exit_with_usage_error("p", UsageError(f"no {text} here"))
    assert capsys.readouterr().err == f"p: error: no {shown} here\n"


def test_numbers_stand_to_the_right_and_long_texts_are_folded() -> None:
    file = io.StringIO()
    table = plain_table(("name", "n"), [("x" * 30, "7"), ("y", "12")], num_texts=1)
    output_console(file=file, file_width=24).print(table)
    text = file.getvalue()
    assert text.count("x") == 30
    assert "  7 " in text


def test_a_stop_with_brackets_in_its_reason_is_a_headline() -> None:
    snapshot = {
        "state": "stopped",
        "settled": 1,
        "questions": 2,
        "accepted": 0,
        "calls": {},
        "eta_seconds": None,
        "note": "the server says [/x] \x1b[31m",
    }
    assert "[/x] \\x1b[31m" in printed(headline(snapshot))


def test_an_evaluation_of_sources_with_brackets_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = ["[/x]", "[bold]b", "c\x1b[1m", "d"]
    rows = [
        {
            "question": {
                "problem_id": number,
                "problem": f"Which is number {number}?",
                "options": ["A. one", "B. two"],
                "solution": "A",
                "problem_type": "multiple choice",
                "data_source": source,
                "path": f"clip_{number}.mp4",
                "data_type": "video",
            },
            "ground_truth": "A",
            "model_output": "<think>so</think><answer>A</answer>",
        }
        for number, source in enumerate(sources)
    ]
    file = tmp_path / "of [b].jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["--predictions", str(file), "--compare", str(file)]) == 0
    out = capsys.readouterr().out
    assert "source: [/x]" in out
    assert "source: [bold]b" in out
    assert "source: c\\x1b[1m" in out
    assert f"against {file}" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 min 00 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7800, "2 h 10 min")],
)
def test_durations_have_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words
