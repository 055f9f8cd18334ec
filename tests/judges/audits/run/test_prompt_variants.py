"""Prompts of the audit: what each shows of the row, and the judge that commits first."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.judged_ledger import choice_question

from judges.audits.records import VARIANTS
from judges.audits.run.plan import RecordedCalls
from judges.audits.run.prompt_variants import (
    Judged,
    RequestSettings,
    committed_answer,
    is_not_deduced,
    judge,
    prompt_id_of,
)
from judges.backends.base import ChatRequest, Reply, StopReason, Usage
from judges.backends.call_records import CallFailure, CallResult
from judges.sufficiency import filled_prompt, prompt_file
from schemas.samples import Reason

QUESTION = choice_question(1, 1)  # the gold answer is B, a plate
OBSERVATION = "A round white thing with a rim stands on the table."
Outcome = str | CallFailure


class ScriptedCalls:
    """Answers each request as a function says, and keeps what was asked."""

    def __init__(self, answer: Callable[[ChatRequest], Outcome]) -> None:
        self._answer = answer
        self.requests: list[ChatRequest] = []

    async def call(self, request: ChatRequest) -> CallResult:
        self.requests.append(request)
        said = self._answer(request)
        outcome = Reply(said, StopReason.END, Usage()) if isinstance(said, str) else said
        return CallResult(f"call-{len(self.requests)}", outcome)


async def _commit(
    answer: Callable[[ChatRequest], Outcome], repeat: int = 0
) -> tuple[Judged, list[ChatRequest]]:
    calls = ScriptedCalls(answer)
    settings = RequestSettings(retries=2)
    judged = await judge(
        calls, QUESTION, OBSERVATION, variant="commit-first", repeat=repeat, settings=settings
    )
    return judged, calls.requests


def _two_step(first: Outcome, second: Outcome) -> Callable[[ChatRequest], Outcome]:
    return lambda request: second if "<own_answer>" in request.text else first


async def test_a_judge_that_commits_does_not_see_the_correct_answer_first() -> None:
    """Bug seen: `{correct_answer}` in the first prompt."""
    _, requests = await _commit(_two_step("<answer>B</answer>", "<judgement>Yes</judgement>"))
    other = QUESTION.model_copy(update={"solution": "C"})
    template, _ = prompt_file("commit-first")
    assert requests[0].text == filled_prompt(template, other, OBSERVATION)
    assert "a plate" in requests[0].text  # as an option
    assert "<correct_answer>\nB. a plate" in requests[1].text
    assert "&lt;answer>B&lt;/answer>" in requests[1].text  # its own reply, unable to close a tag


@pytest.mark.parametrize(
    ("first", "second", "verdict", "num_calls"),
    [
        ("It has a rim. <answer>B</answer>", "<judgement>Yes</judgement>", "yes", 2),
        ("I guess <answer>a plate</answer>", "A guess. <judgement>No</judgement>", "no", 2),
        ("<answer>C</answer>", "<judgement>Yes</judgement>", "no", 1),
        ("<answer>cannot be deduced</answer>", "<judgement>Yes</judgement>", "no", 1),
        ("<answer>B or C</answer>", "<judgement>Yes</judgement>", "no", 1),
        ("<answer>C</answer> no: <answer>B</answer>", "<judgement>Yes</judgement>", "yes", 2),
        ("It is B.", "<judgement>Yes</judgement>", "unscored", 3),
        ("<answer>B</answer>", "Certainly.", "unscored", 4),
    ],
)
async def test_only_an_answer_that_is_right_and_not_guessed_is_a_yes(
    first: str, second: str, verdict: str, num_calls: int
) -> None:
    """Unscored replies are asked again, twice; a No at the first step pays no second call."""
    judged, requests = await _commit(_two_step(first, second))
    assert judged.verdict.verdict == verdict
    assert len(requests) == num_calls
    assert first in judged.reply
    assert judged.prompt_id == prompt_id_of("commit-first")


@pytest.mark.parametrize("step", [1, 2])
async def test_a_call_that_fails_for_good_leaves_the_row_unscored(step: int) -> None:
    failure = CallFailure(Reason.REFUSED, "no thanks")
    script = _two_step(failure if step == 1 else "<answer>B</answer>", failure)
    judged, requests = await _commit(script)
    assert (judged.verdict.verdict, judged.verdict.unscored_reason) == ("unscored", "refused")
    assert judged.failure == "no thanks"
    assert len(requests) == step


async def test_repeats_never_share_a_draw() -> None:
    """Bug seen: the repeat's number as draw, so that a retried reply was the next repeat's."""
    draws = []
    for repeat in range(3):
        _, requests = await _commit(_two_step("nothing", ""), repeat)
        draws += [request.draw for request in requests]
    assert draws == list(range(9))


@pytest.mark.parametrize("variant", ["sufficiency", "sufficiency-short"])
async def test_one_call_variants_read_the_last_judgement(variant: str) -> None:
    reply = "<judgement>No</judgement> But the last frame shows it: <judgement>Yes</judgement>"
    calls = ScriptedCalls(lambda _: reply)
    judged = await judge(
        calls, QUESTION, OBSERVATION, variant=variant, repeat=0, settings=RequestSettings()
    )
    assert judged.verdict.verdict == "yes"
    assert len(calls.requests) == 1
    for shown in (OBSERVATION, "B. a plate", QUESTION.problem, "<judgement>No</judgement>"):
        assert shown in calls.requests[0].text


def test_every_prompt_has_its_own_id_and_fills_all_its_places() -> None:
    assert len({prompt_id_of(variant) for variant in VARIANTS}) == len(VARIANTS)
    for name in (*(name for name in VARIANTS if name != "answer"), "commit-then-judge"):
        filled = filled_prompt(prompt_file(name)[0], QUESTION, OBSERVATION, committed="mine")
        assert "{" not in filled


def test_the_id_of_the_two_call_prompt_depends_on_both_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bug seen: the first file's id alone, so that a change of the second went unnoticed."""
    before = prompt_id_of("commit-first")
    real = prompt_file

    def changed(name: str) -> tuple[str, str]:
        text, prompt_id = real(name)
        return (text + "!" if name == "commit-then-judge" else text), prompt_id

    monkeypatch.setattr("judges.audits.run.prompt_variants.prompt_file", changed)
    assert prompt_id_of("commit-first") != before


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<answer>B</answer>", "B"),
        ("< ANSWER > 3 to 4 </ answer >", "3 to 4"),
        ("<answer>B", "B"),
        ("The answer is B.", None),
        ("", None),
    ],
)
def test_an_answer_is_what_stands_in_the_last_answer_block(reply: str, answer: str | None) -> None:
    assert committed_answer(reply) == answer


@pytest.mark.parametrize(
    ("answer", "is_none"),
    [
        ("cannot be deduced", True),
        ("Cannot be deduced.", True),
        ("It can't be deduced", True),
        ("can not be deduced", True),
        ("B, cannot be deduced otherwise", False),
        ("the cannon", False),
    ],
)
def test_no_answer_is_said_in_the_words_of_the_prompt(answer: str, is_none: bool) -> None:
    assert is_not_deduced(answer) is is_none


async def test_calls_are_made_about_the_row_s_own_question_and_seeded_where_asked() -> None:
    calls = ScriptedCalls(lambda _: "fine")
    for seeds in (False, True):
        recorded = RecordedCalls(calls, "question-1", sends_seed=seeds)
        await recorded.call(replace(ChatRequest((), 9), draw=4, question_id="other", step="filter"))
        assert len(recorded.keys) == 1
    assert [(r.question_id, r.step, r.sampling) for r in calls.requests] == [
        ("question-1", "audit", ()),
        ("question-1", "audit", (("seed", 4.0),)),
    ]


def _read(with_observation: str, without: str) -> Callable[[ChatRequest], Outcome]:
    return lambda request: with_observation if "<given_observation>" in request.text else without


async def _answered(
    answer: Callable[[ChatRequest], Outcome], repeat: int = 0
) -> tuple[Judged, list[ChatRequest]]:
    calls = ScriptedCalls(answer)
    judged = await judge(
        calls, QUESTION, OBSERVATION, variant="answer", repeat=repeat, settings=RequestSettings()
    )
    return judged, calls.requests


@pytest.mark.parametrize(
    ("with_observation", "without", "verdict"),
    [
        ("<answer>a plate</answer>", "<answer>nothing</answer>", "yes"),
        ("<answer>a plate</answer>", "<answer>a plate</answer>", "no"),  # known beforehand
        ("<answer>nothing</answer>", "<answer>nothing</answer>", "no"),
    ],
)
async def test_answers_are_a_verdict_by_their_rates(
    with_observation: str, without: str, verdict: str
) -> None:
    judged, requests = await _answered(_read(with_observation, without))
    assert judged.verdict.verdict == verdict
    assert len(requests) == 8
    assert "answers from the observation are correct" in judged.reply
    assert judged.prompt_id == prompt_id_of("answer")
    assert not any("<correct_answer>" in request.text for request in requests)


async def test_an_answer_that_fails_for_good_leaves_the_row_unscored() -> None:
    failure = CallFailure(Reason.CALL_FAILED, "no server")
    judged, _ = await _answered(lambda _: failure)
    assert (judged.verdict.verdict, judged.failure) == ("unscored", "no server")


async def test_repeats_of_answers_never_share_a_draw() -> None:
    draws = []
    for repeat in range(3):
        _, requests = await _answered(_read("<answer>a plate</answer>", "x"), repeat)
        draws += [request.draw for request in requests[4:]]
    assert draws == list(range(12))
