"""A text reader: what it is shown, in which orders, how its answers count, and what decides."""

import asyncio
from typing import Any

import pytest
from helpers.scoring_questions import choice_question, grounding_question

from judges.backends.base import ChatRequest, Reply, StopReason, Usage
from judges.backends.budget import StopRequested
from judges.backends.call_records import CallFailure, CallResult
from judges.scoring.choices import chosen_letter, read_choices
from judges.text_reader import (
    ReaderAnswer,
    ReaderSettings,
    Reading,
    is_above_blind,
    read_answers,
    reader_prompt,
    reader_requests,
)
from schemas.questions import VideoQuestion
from schemas.samples import Reason, UnscoredReason

CHECKS = choice_question("C")  # A. Dots B. Horizontal stripes C. Checks D. No pattern
FOUR = ReaderSettings(samples=4)


class Repliers:
    """Calls that reply with a function of the request."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply
        self.requests: list[ChatRequest] = []

    async def call(self, request: ChatRequest) -> CallResult:
        self.requests.append(request)
        await asyncio.sleep(0)
        found = self._reply(request)
        if isinstance(found, StopRequested):
            raise found
        outcome = Reply(found, StopReason.END, Usage()) if isinstance(found, str) else found
        return CallResult(f"call-{request.draw}", outcome)


def read(question: VideoQuestion, reply: Any, observation: str | None = None) -> Reading:
    return asyncio.run(
        read_answers(Repliers(reply), question, observation, settings=FOUR, step="blind")
    )


def reading(*correct: bool | None) -> Reading:
    """Answers with these outcomes; None is unscored."""
    answers = tuple(
        ReaderAnswer(number, 0, f"call-{number}", is_correct=one)
        for number, one in enumerate(correct)
    )
    return Reading(answers, "prompt-1")


def test_blind_the_question_stands_alone_and_with_an_observation_in_its_tag() -> None:
    blind, blind_id = reader_prompt(CHECKS, None)
    shown, shown_id = reader_prompt(CHECKS, "A checked top.")
    for prompt in (blind, shown):
        assert "C. Checks" in prompt
        assert "not shown to you" in prompt
    assert "given_observation" not in blind
    assert "<given_observation>\nA checked top.\n</given_observation>" in shown
    assert blind_id != shown_id


def test_the_gold_answer_is_in_no_prompt() -> None:
    one, other = grounding_question("4.4 to 5.2"), grounding_question("17 to 18")
    assert reader_prompt(one, None) == reader_prompt(other, None)


def test_braces_in_an_observation_pull_nothing_in() -> None:
    prompt, first = reader_prompt(CHECKS, "{task} {observation}", "think-answer")
    assert "{task} {observation}" in prompt
    assert reader_prompt(CHECKS, "x", "p2r")[1] != first


def test_each_sample_has_another_order_and_the_gold_answer_moves_with_its_text() -> None:
    requests = reader_requests(CHECKS, None, FOUR, "blind")
    orders = [tuple(one.text for one in read_choices(asked.options)) for _, asked, _ in requests]
    assert orders[0] == ("Dots", "Horizontal stripes", "Checks", "No pattern")
    assert len(set(orders)) == 4
    for request, asked, _ in requests:
        gold = chosen_letter(asked.solution, asked.options)
        assert next(o.text for o in read_choices(asked.options) if o.letter == gold) == "Checks"
        assert f"{gold}. Checks" in request.text
        assert request.question_id == CHECKS.question_id
    assert [request.draw for request, _, _ in requests] == [0, 1, 2, 3]
    assert [number for _, _, number in requests] == [0, 1, 3, 5]


def test_two_options_stand_in_both_orders_equally_often() -> None:
    two = choice_question("A", ("A. a cup", "B. a plate"))
    requests = reader_requests(two, None, FOUR, "blind")
    firsts = [asked.options[0] for _, asked, _ in requests]
    assert firsts == ["A. a cup", "A. a plate", "A. a cup", "A. a plate"]


def test_observation_and_question_alone_meet_the_same_orders() -> None:
    """Else the two rates would differ by the luck of an order."""
    blind = reader_requests(CHECKS, None, FOUR, "blind")
    shown = reader_requests(CHECKS, "A checked top.", FOUR, "filter-answer")
    assert [asked for _, asked, _ in blind] == [asked for _, asked, _ in shown]


def test_questions_of_one_text_about_two_videos_are_one_request() -> None:
    other = CHECKS.model_copy(update={"media": grounding_question("1 to 2").media, "solution": "A"})
    texts = [
        [request.text for request, _, _ in reader_requests(one, None, FOUR, "blind")]
        for one in (CHECKS, other)
    ]
    assert texts[0] == texts[1]


def test_seeds_are_sent_where_they_are_taken() -> None:
    settings = ReaderSettings(samples=4, sampling=(("temperature", 0.7),), sends_seed=True)
    sampling = [r.sampling for r, _, _ in reader_requests(CHECKS, None, settings, "blind")]
    assert sampling[3] == (("temperature", 0.7), ("seed", 3.0))


def test_a_reader_that_knows_the_text_is_correct_in_every_order() -> None:
    found = read(CHECKS, lambda request: "<think>x</think><answer>Checks</answer>")
    assert [answer.is_correct for answer in found.answers] == [True] * 4
    assert (found.num_correct, found.num_unscored, found.rate) == (4, 0, 1.0)


def test_a_reader_that_always_says_c_is_correct_in_the_first_order_only() -> None:
    """The orders put the gold answer behind another letter at least once: letters are no answer."""
    found = read(CHECKS, lambda request: "<answer>C</answer>")
    golds = [
        chosen_letter(asked.solution, asked.options)
        for _, asked, _ in reader_requests(CHECKS, None, FOUR, "blind")
    ]
    assert [answer.is_correct for answer in found.answers] == [gold == "C" for gold in golds]
    assert found.reaches(4) is False


def test_a_reply_without_an_answer_is_not_correct_and_an_unusable_call_is_neither() -> None:
    truncated = CallFailure(Reason.TRUNCATED, "cut")
    replies = ["I cannot see it.", "<answer>Checks</answer>", truncated, "<answer>Checks</answer>"]
    found = read(CHECKS, lambda request: replies[request.draw])
    assert [answer.is_correct for answer in found.answers] == [False, True, None, True]
    assert found.answers[2].unscored_reason is UnscoredReason.TRUNCATED
    assert (found.failure, found.rate) == (None, 0.5)


def test_a_call_that_failed_for_good_is_the_readings_failure() -> None:
    failed = CallFailure(Reason.CALL_FAILED, "529 overloaded")
    found = read(CHECKS, lambda request: failed if request.draw == 2 else "<answer>Checks</answer>")
    assert found.failure == failed


def test_a_stop_is_raised_after_all_samples_have_ended() -> None:
    calls = Repliers(
        lambda request: StopRequested("budget") if request.draw == 0 else "<answer>A</answer>"
    )
    with pytest.raises(StopRequested, match="budget"):
        asyncio.run(read_answers(calls, CHECKS, None, settings=FOUR, step="blind"))
    assert len(calls.requests) == 4


@pytest.mark.parametrize(
    ("correct", "needed", "reached"),
    [
        ((True, True, True, True), 4, True),
        ((True, True, True, False), 4, False),
        ((True, True, True, False), 3, True),
        ((True, True, True, None), 4, None),  # it might have been correct
        ((True, False, True, None), 4, False),  # whatever it was
        ((True, True, True, None), 3, True),
    ],
)
def test_unscored_replies_decide_nothing(
    correct: tuple[bool | None, ...], needed: int, reached: bool | None
) -> None:
    assert reading(*correct).reaches(needed) is reached


T, F = True, False


@pytest.mark.parametrize(
    ("with_observation", "blind", "suffices"),
    [
        ((T, T, T, T), (F, F, F, F), True),
        ((T, T, F, F), (F, F, F, F), True),  # exactly the margin
        ((T, F, F, F), (F, F, F, F), False),
        ((T, T, T, F), (T, F, F, F), True),
        ((T, T, F, F), (T, F, F, F), False),
        ((T, T, T, T), (T, T, T, F), False),  # it adds too little to what was known before
        ((T, T, None, F), (F, F, F, F), True),
        ((T, None, F, F), (F, F, F, F), None),
        ((T, T, F, F), (None, F, F, F), None),
        ((None, None, None, None), (T, T, T, F), False),  # it could not have shown it
    ],
)
def test_an_observation_suffices_where_it_adds_the_margin_to_the_blind_rate(
    with_observation: tuple[bool | None, ...],
    blind: tuple[bool | None, ...],
    suffices: bool | None,
) -> None:
    assert is_above_blind(reading(*with_observation), reading(*blind), 0.5) is suffices


def test_a_margin_of_three_tenths_is_met_by_one_of_three_in_ten_samples() -> None:
    """0.7 - 0.4 is a hair below 0.3 in floating point."""
    assert is_above_blind(reading(*[T] * 7, *[F] * 3), reading(*[T] * 4, *[F] * 6), 0.3) is True
