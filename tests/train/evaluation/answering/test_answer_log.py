"""An evaluation that was killed and resumed reports what an uninterrupted one does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.evaluations import (
    arguments,
    command,
    environment,
    evaluate,
    outputs_of,
    read_rows,
    report_of,
    write_questions,
    write_world,
)
from helpers.training_world import FAMILIES, write_clip

from cli.config import EXIT_OK, EXIT_ROWS_FAILED, UsageError
from schemas.annotations.reader import read_questions
from schemas.questions import VideoQuestion
from train.evaluation.answering.answer_log import ANSWERS_FILE, AnswerLog
from train.evaluation.answering.model_answers import remembered_interrupt
from train.evaluation.predictions import Prediction

pytestmark = pytest.mark.heavy

FAMILY = FAMILIES[0]
NUMBERS = ("overall", "slices", "mismatch", "errors", "conditions", "truncated")


def questions_in(path: Path) -> list[VideoQuestion]:
    return [row for row in read_questions(path) if isinstance(row, VideoQuestion)]


def num_answers(out: Path) -> int:
    path = out / ANSWERS_FILE
    return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0


@pytest.mark.heavy
@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_gives_the_same_numbers(tmp_path: Path) -> None:
    """Ctrl-C, then a real kill, and half a line as if that had come during a write."""
    questions = write_world(tmp_path / "world", 36)
    (tmp_path / "world" / "clip_3.mp4").unlink()
    options = arguments(FAMILY, questions, tmp_path / "out", "--max-new-tokens", "48")
    for enough, how, status in ((3, signal.SIGINT, 3), (7, signal.SIGKILL, -signal.SIGKILL)):
        running = subprocess.Popen(
            command(*options), env=environment(), stderr=subprocess.PIPE, text=True
        )
        until = time.monotonic() + 120
        while num_answers(tmp_path / "out") < enough and running.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.002)
        running.send_signal(how)
        _, said = running.communicate(timeout=60)
        assert running.returncode == status, said
        assert status != 3 or "the same command again resumes" in said
        assert num_answers(tmp_path / "out") < 36
    stored = (tmp_path / "out" / ANSWERS_FILE).read_bytes()
    with (tmp_path / "out" / ANSWERS_FILE).open("ab") as file:
        file.write(b'{"question_id": "question-00')
    assert evaluate(*options) == EXIT_ROWS_FAILED
    assert (tmp_path / "out" / ANSWERS_FILE).read_bytes().startswith(stored)
    whole = arguments(FAMILY, questions, tmp_path / "whole", "--max-new-tokens", "48")
    assert evaluate(*whole) == EXIT_ROWS_FAILED
    assert outputs_of(tmp_path / "out") == outputs_of(tmp_path / "whole")
    resumed, uninterrupted = report_of(tmp_path / "out"), report_of(tmp_path / "whole")
    assert {name: resumed[name] for name in NUMBERS} == {
        name: uninterrupted[name] for name in NUMBERS
    }
    assert len(resumed["errors"]) == 8


def test_an_interrupt_that_a_callback_swallows_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: dropped.append(found.exc_type))

    class Dropped:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # the handler runs here, and Python drops what it raises

    with remembered_interrupt() as stop:
        assert not stop.is_set()
        Dropped()
        assert dropped == [KeyboardInterrupt]
        assert stop.is_set()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """An evaluation of the first three questions of eight."""
    questions = write_world(tmp_path / "world")
    assert evaluate(*arguments(FAMILY, questions, tmp_path / "out", "--limit", "3")) == EXIT_OK
    assert num_answers(tmp_path / "out") == 3
    return questions


def test_a_raised_limit_goes_on(begun: Path, tmp_path: Path) -> None:
    stored = (tmp_path / "out" / ANSWERS_FILE).read_bytes()
    assert evaluate(*arguments(FAMILY, begun, tmp_path / "out")) == EXIT_OK
    assert (tmp_path / "out" / ANSWERS_FILE).read_bytes().startswith(stored)
    assert report_of(tmp_path / "out")["overall"]["tolerant"]["n"] == 8
    # A lower limit again: the answers beyond it stay, and play no part.
    assert evaluate(*arguments(FAMILY, begun, tmp_path / "out", "--limit", "2")) == EXIT_OK
    assert report_of(tmp_path / "out")["overall"]["tolerant"]["n"] == 2
    assert num_answers(tmp_path / "out") == 8


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--frames", "uniform:2"),
        ("--temperature", "0.5"),
        ("--template", "think-answer"),
        ("--seed", "1"),
        ("--max-new-tokens", "11"),
        ("--top-k", "1"),
        ("--repetition-penalty", "1.05"),
    ],
)
def test_options_that_shape_answers_may_not_change(
    option: str, value: str, begun: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"begun with other options: {option} was"):
        evaluate(*arguments(FAMILY, begun, tmp_path / "out", option, value))


def test_another_checkpoint_in_the_same_folder_is_refused(begun: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = (out / ANSWERS_FILE).read_text("utf-8").splitlines(keepends=True)
    head = json.loads(lines[0])
    head["made_with"]["weights"] = "weights-of-yesterday"
    (out / ANSWERS_FILE).write_text("".join([json.dumps(head) + "\n", *lines[1:]]), "utf-8")
    with pytest.raises(UsageError, match="made with other weights"):
        evaluate(*arguments(FAMILY, begun, out))


def test_a_changed_question_file_is_refused(begun: Path, tmp_path: Path) -> None:
    rows = read_rows(begun)
    rows[1]["problem"] = "Another question?"
    write_questions(begun, rows)
    with pytest.raises(UsageError, match=r"row 1: the question file has changed"):
        evaluate(*arguments(FAMILY, begun, tmp_path / "out"))


def test_rows_that_failed_are_asked_again_on_request_only(tmp_path: Path) -> None:
    questions = write_world(tmp_path / "world", 5)
    (tmp_path / "world" / "clip_1.mp4").unlink()
    options = arguments(FAMILY, questions, tmp_path / "out")
    assert evaluate(*options) == EXIT_ROWS_FAILED
    write_clip(tmp_path / "world" / "clip_1.mp4", seed=1)
    assert evaluate(*options) == EXIT_ROWS_FAILED
    assert evaluate(*options, "--retry-failed") == EXIT_OK
    assert report_of(tmp_path / "out")["overall"]["errors"] == 0
    assert outputs_of(tmp_path / "out")["q1"]
    # The error stays in the file; the later answer wins.
    assert evaluate(*options) == EXIT_OK


def test_one_folder_has_one_writer(tmp_path: Path) -> None:
    questions = questions_in(write_world(tmp_path))
    with (
        AnswerLog(tmp_path, questions, {"weights": "w"}),
        pytest.raises(UsageError, match="written by another evaluation"),
        AnswerLog(tmp_path, questions, {"weights": "w"}),
    ):
        pass


def test_half_a_line_is_no_answer_and_is_written_over(tmp_path: Path) -> None:
    questions = questions_in(write_world(tmp_path))
    with AnswerLog(tmp_path, questions, {}) as log:
        log.add([Prediction(questions[0], output="one"), Prediction(questions[1], output="two")])
    data = (tmp_path / ANSWERS_FILE).read_bytes()
    (tmp_path / ANSWERS_FILE).write_bytes(data[:-7])
    with AnswerLog(tmp_path, questions, {}) as log:
        assert questions[0] in log
        assert questions[1] not in log
        log.add([Prediction(questions[1], output="two")])
    assert (tmp_path / ANSWERS_FILE).read_bytes() == data


def test_answers_with_any_characters_are_kept(tmp_path: Path) -> None:
    questions = questions_in(write_world(tmp_path))
    output = "line\nnext\u2028 \u0000 \ufffd é"
    with AnswerLog(tmp_path, questions, {}) as log:
        log.add([Prediction(questions[0], output=output, token_counts={"think": 3})])
    with AnswerLog(tmp_path, questions, {}) as log:
        assert log.get(questions[0]) == Prediction(
            questions[0], output=output, token_counts={"think": 3}
        )
        assert questions[1] not in log


def test_a_line_that_somebody_changed_is_an_error(tmp_path: Path) -> None:
    questions = questions_in(write_world(tmp_path))
    (tmp_path / ANSWERS_FILE).write_text('{"made_with": {}}\nhello\n', "utf-8")
    with pytest.raises(UsageError, match="line 2, is no JSON"):
        AnswerLog(tmp_path, questions, {})


@pytest.mark.parametrize(
    "line", ["{}", "[]", "null", '{"question_id": "q"}', '{"question_id": 5, "row": [1]}']
)
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, line: str) -> None:
    questions = questions_in(write_world(tmp_path))
    with AnswerLog(tmp_path, questions, {}) as log:
        log.add([Prediction(questions[0], output="yes")])
    with (tmp_path / ANSWERS_FILE).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UsageError, match="line 3, is no answer of this command: the file was edit"):
        AnswerLog(tmp_path, questions, {})
