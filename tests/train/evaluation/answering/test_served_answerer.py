"""Answers of a server: those of this process, from its weights alone, and none that is lost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.evaluations import (
    answers_of,
    arguments,
    evaluate,
    outputs_of,
    report_of,
    write_world,
)
from helpers.rollout_wire import rollout_wire
from helpers.served_model import free_port
from helpers.tiny_vllm import TinyVllm, tiny_vllm
from helpers.training_world import FAMILIES, write_clip

from cli.config import EXIT_OK, EXIT_ROWS_FAILED, EXIT_STOPPED, UsageError
from train.evaluation.answering.answer_log import ANSWERS_FILE

pytestmark = pytest.mark.heavy

GREEDY = ("--temperature", "0")
APPO = ("--temperature", "1", "--top-p", "1", "--top-k", "1", "--repetition-penalty", "1.05")
NUM_QUESTIONS = 8
CHECKS = 1  # requests before the first question


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_world(tmp_path / "world", NUM_QUESTIONS)


@pytest.fixture
def server(questions: Path) -> Iterator[TinyVllm]:
    with tiny_vllm(FAMILIES[0], questions) as started:
        yield started


def served(questions: Path, out: Path, url: str, *more: str, family: str = FAMILIES[0]) -> int:
    words = ("--rollouts", "vllm", "--vllm-url", url, "--concurrency", "3")
    return evaluate(*arguments(family, questions, out, *words, *(more or GREEDY)))


def stored(out: Path) -> list[dict[str, Any]]:
    lines = (out / ANSWERS_FILE).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines[1:]]


@pytest.mark.parametrize(
    ("family", "decoding"),
    [(FAMILIES[0], GREEDY), (FAMILIES[1], APPO), (FAMILIES[0], (*GREEDY, "--shuffle-videos"))],
    ids=["greedy", "as APPO decodes", "another clip's frames"],
)
def test_answers_and_report_are_those_of_this_process(
    family: str, decoding: tuple[str, ...], questions: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    status = evaluate(*arguments(family, questions, here, *decoding))
    with tiny_vllm(family, questions) as server:
        assert served(questions, there, server.url, *decoding, family=family) == status
    assert answers_of(there) == answers_of(here)
    one, other = report_of(here), report_of(there)
    conditions = other.pop("conditions")
    assert conditions["decoding"] == one.pop("conditions")["decoding"] + ", by a vLLM server"
    assert one.pop("run")["command"] != other.pop("run")["command"]
    assert one == other
    assert len(set(outputs_of(there).values())) > 3


def test_the_penalty_reaches_both(questions: Path, tmp_path: Path) -> None:
    assert evaluate(*arguments(FAMILIES[0], questions, tmp_path / "plain", *GREEDY)) == EXIT_OK
    assert evaluate(*arguments(FAMILIES[0], questions, tmp_path / "appo", *APPO)) == EXIT_OK
    assert outputs_of(tmp_path / "plain") != outputs_of(tmp_path / "appo")
    assert "top_k 1, " in report_of(tmp_path / "appo")["conditions"]["decoding"]
    assert "repetition penalty 1.05" in report_of(tmp_path / "appo")["conditions"]["decoding"]


def test_a_server_that_is_lost_costs_no_answer_that_was_there(
    server: TinyVllm, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert evaluate(*arguments(FAMILIES[0], questions, whole, *GREEDY)) == EXIT_OK
    server.fault = lambda number, _: (200, b"") if number > CHECKS + 4 else None
    assert served(questions, out, server.url) == EXIT_STOPPED
    told = capsys.readouterr().err
    assert "ended its reply before its end; the same command again resumes" in told
    kept = stored(out)
    assert 2 <= len(kept) <= 4
    assert not any(line["error"] for line in kept)
    before = len(server.chats)
    server.fault = lambda *_: None
    server.version = "default"  # it was started anew
    assert served(questions, out, server.url) == EXIT_OK
    assert len(server.chats) - before == CHECKS + NUM_QUESTIONS - len(kept)
    assert stored(out)[: len(kept)] == kept
    assert outputs_of(out) == outputs_of(whole)
    server.wire.answers.clear()  # nobody is asked once all answers are there
    assert served(questions, out, server.url) == EXIT_OK


def test_weights_of_another_run_end_the_evaluation_before_an_answer_counts(
    server: TinyVllm, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def replaced(number: int, _: Any) -> None:
        if number == CHECKS + 3:
            server.version = "p2r-of-somebody-else"

    server.fault = replaced
    assert served(questions, tmp_path / "out", server.url) == EXIT_STOPPED
    assert "has other weights than it was sent: another run sent" in capsys.readouterr().err
    assert len(stored(tmp_path / "out")) <= 2


def test_a_model_that_is_not_the_one_given_is_refused(
    server: TinyVllm, questions: Path, tmp_path: Path
) -> None:
    """As if the server had a layer that is not in what it is sent."""
    with torch.no_grad():
        for own in server.model.model.language_model.layers[0].parameters():
            own.mul_(1.1)
    with pytest.raises(UsageError, match=r"log-probs that differ from those of --model by 0\.\d+"):
        served(questions, tmp_path / "out", server.url)
    assert not (tmp_path / "out").exists()
    assert len(server.chats) == CHECKS


def test_what_the_server_refuses_and_a_broken_clip_are_error_rows(
    server: TinyVllm, questions: Path, tmp_path: Path
) -> None:
    (tmp_path / "world" / "clip_1.mp4").write_bytes(b"no video")

    def too_long(_: int, body: dict[str, Any]) -> tuple[int, bytes] | None:
        is_it = "Question 2:" in body["messages"][0]["content"][-1]["text"]
        return (400, b"maximum context length is 8") if is_it else None

    server.fault = too_long
    out = tmp_path / "out"
    assert served(questions, out, server.url) == EXIT_ROWS_FAILED
    errors = {row["problem_id"]: row["error"] for row in answers_of(out) if row["error"]}
    assert {*errors} == {"q1", "q2", "q5"}
    assert "clip_1.mp4" in errors["q1"]
    assert "maximum context length is 8" in errors["q2"]
    write_clip(tmp_path / "world" / "clip_1.mp4", seed=1)
    server.fault = lambda *_: None
    assert served(questions, out, server.url, *GREEDY, "--retry-failed") == EXIT_OK


def test_no_server_and_one_that_takes_no_weights_are_a_sentence(
    questions: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"--vllm-url: .*/v1/models does not answer"):
        served(questions, tmp_path / "out", f"http://127.0.0.1:{free_port()}")
    with (
        rollout_wire() as wire,
        pytest.raises(UsageError, match="has no such route: start it with VLLM_SERVER_DEV_MODE=1"),
    ):
        served(questions, tmp_path / "out", wire.url)
    assert not (tmp_path / "out").exists()
