"""The three steps, one sample at a time: what the models are shown, what is kept, why the rest is
not, and that every attempt leaves its rows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.built_ledger import empty_ledger, question
from helpers.scripted_calls import Answer, ScriptedCalls, a_clip, judgement, trace

from judges.backends.base import ImagePart, TextPart
from judges.backends.calls import CallFailure
from pipeline.steps import (
    Generated,
    StepSettings,
    Verified,
    filter_observation,
    generate,
    generation_request,
    verify,
)
from schemas.ledger.ledger import Ledger
from schemas.questions import ProblemType, VideoQuestion
from schemas.samples import CoTSample, Reason, Rejection, Step
from schemas.traces import TEMPLATES, TraceError, parse_trace

SETTINGS = StepSettings(generator="claude:teacher", judge="claude:judge")
ASKED = question(0)  # multiple choice, gold A


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with empty_ledger(tmp_path) as opened:
        opened.add_question(ASKED)
        yield opened


def generated(output: str, asked: VideoQuestion = ASKED) -> Generated:
    try:
        return Generated(asked, 0, output, parse_trace(output, TEMPLATES["p2r"]))
    except TraceError as error:
        return Generated(asked, 0, output, error)


def verified(observation: str = "a red ball rolls", asked: VideoQuestion = ASKED) -> Verified:
    output = trace(asked.solution, observation=observation, think="the secret reasoning")
    return Verified(generated(output, asked), parse_trace(output, TEMPLATES["p2r"]), 1.0)


async def judged(
    ledger: Ledger, *script: Answer, observation: str = "a red ball rolls", **settings: Any
) -> CoTSample | Rejection:
    return await filter_observation(
        verified(observation),
        calls=ScriptedCalls(*script),
        ledger=ledger,
        settings=StepSettings(generator="claude:teacher", judge="claude:judge", **settings),
    )


def verdicts(ledger: Ledger) -> list[tuple[object, ...]]:
    return ledger.query(
        "SELECT judge_draw, verdict, unscored_reason, answer_leak, leak_allowed "
        "FROM sufficiency_verdicts ORDER BY judge_draw"
    )


def test_the_teacher_sees_each_frame_behind_its_number_and_time_and_then_the_task() -> None:
    clip = a_clip(times=(0.0, 1.25))
    request, prompt_id = generation_request(ASKED, [clip], SETTINGS, attempt=3)
    *shown, task = request.parts
    assert shown == [
        TextPart("Video, 3.0 s long, 2 frames in order:"),
        TextPart("Frame 1 at 0.00 s"),
        ImagePart(clip.image_id(0), 160, 90, b"jpeg 0"),
        TextPart("Frame 2 at 1.25 s"),
        ImagePart(clip.image_id(1), 160, 90, b"jpeg 1"),
    ]
    assert [image.data for image in request.images] == [b"jpeg 0", b"jpeg 1"]
    assert isinstance(task, TextPart)
    assert "What happens in clip 0?" in task.text
    assert "A. red | green" in task.text
    assert (request.draw, request.step, request.question_id) == (3, "generate", ASKED.question_id)
    assert prompt_id


def test_attempts_are_seeded_only_where_the_backend_takes_seeds() -> None:
    plain, _ = generation_request(ASKED, [a_clip()], SETTINGS, attempt=3)
    assert plain.sampling == ()
    seeding = StepSettings("t", "j", generator_sampling=(("temperature", 0.7),), seed_attempts=True)
    seeded, _ = generation_request(ASKED, [a_clip()], seeding, attempt=3)
    assert seeded.sampling == (("temperature", 0.7), ("seed", 3.0))


@pytest.mark.parametrize(
    ("output", "stored"),
    [
        (trace("A"), ("a red ball rolls", "so it is", "A")),
        ("<observation>half a trace", (None, None, None)),
    ],
)
async def test_every_attempt_is_stored_well_formed_or_not(
    ledger: Ledger, output: str, stored: tuple[str | None, ...]
) -> None:
    done = await generate(
        ASKED, [a_clip()], 2, calls=ScriptedCalls(output), ledger=ledger, settings=SETTINGS
    )
    assert isinstance(done, Generated)
    assert (done.output, isinstance(done.parsed, TraceError)) == (output, stored[0] is None)
    assert ledger.query(
        "SELECT draw, output, observation, think, answer, generator, frame_indices, frame_times "
        "FROM attempts"
    ) == [(2, output, *stored, "claude:teacher", [0, 12], [0.0, 1.25])]


async def test_a_call_that_failed_leaves_no_attempt(ledger: Ledger) -> None:
    calls = ScriptedCalls(CallFailure(Reason.REFUSED, "I must not"))
    done = await generate(ASKED, [a_clip()], 0, calls=calls, ledger=ledger, settings=SETTINGS)
    assert done == Rejection(Step.GENERATE, Reason.REFUSED, "I must not")
    assert ledger.query("SELECT count(*) FROM attempts") == [(0,)]


def test_a_malformed_trace_is_not_scored_although_its_answer_is_right(ledger: Ledger) -> None:
    output = "<observation>o</observation> so <think>t</think><answer>A</answer>"
    done = verify(generated(output), ledger=ledger, settings=SETTINGS)
    assert isinstance(done, Rejection)
    assert (done.step, done.reason) == (Step.VERIFY, Reason.MALFORMED_TRACE)
    assert "stray_text" in done.detail
    assert ledger.query("SELECT count(*) FROM answer_checks") == [(0,)]


@pytest.mark.parametrize(("threshold", "passes"), [(0.5, True), (0.75, True), (0.8, False)])
def test_the_score_is_held_against_the_threshold_of_the_settings(
    ledger: Ledger, threshold: float, passes: bool
) -> None:
    # One of four words is wrong: the score is 1 - 1/4, which reaches a threshold of 0.75.
    asked = question(1, problem_type=ProblemType.OCR, solution="one two three four")
    settings = StepSettings("t", "j", threshold=threshold)
    done = verify(generated(trace("one two three five"), asked), ledger=ledger, settings=settings)
    if passes:
        assert isinstance(done, Verified)
        assert done.score == 0.75
    else:
        detail = "one_minus_wer 0.750 is below 0.8"
        assert done == Rejection(Step.VERIFY, Reason.LOW_SCORE, detail)
    assert ledger.query("SELECT metric, score, passed, extracted FROM answer_checks") == [
        ("one_minus_wer", 0.75, passes, "one two three five")
    ]


async def test_the_judge_sees_the_observation_and_neither_frames_nor_reasoning(
    ledger: Ledger,
) -> None:
    calls = ScriptedCalls(judgement("Yes"))
    await filter_observation(verified(), calls=calls, ledger=ledger, settings=SETTINGS)
    (request,) = calls.requests
    assert "a red ball rolls" in request.text
    assert "the secret reasoning" not in request.text
    assert request.images == ()
    assert (request.step, request.max_tokens) == ("filter", 512)


async def test_a_sufficient_observation_makes_a_sample_with_the_teachers_words(
    ledger: Ledger,
) -> None:
    done = await judged(ledger, judgement("Yes"))
    assert done == CoTSample(
        question_id=ASKED.question_id,
        draw=0,
        output=verified().generated.output,
        observation="a red ball rolls",
        think="the secret reasoning",
        answer="A",
        reward=1.0,
        judge_reply=judgement("Yes"),
    )
    assert verdicts(ledger) == [(0, "yes", None, False, False)]


async def test_an_insufficient_observation_is_rejected(ledger: Ledger) -> None:
    done = await judged(ledger, judgement("No"))
    assert done == Rejection(Step.FILTER, Reason.INSUFFICIENT, "the judge says No")
    assert verdicts(ledger) == [(0, "no", None, False, False)]


async def test_a_judge_without_a_verdict_is_asked_again_and_is_then_unscored_not_insufficient(
    ledger: Ledger,
) -> None:
    done = await judged(ledger, "I would rather not say.", judge_retries=2)
    assert done == Rejection(Step.FILTER, Reason.UNSCORED, "no_judgement after 3 replies")
    assert verdicts(ledger) == [
        (draw, "unscored", "no_judgement", False, False) for draw in (0, 1, 2)
    ]


async def test_the_last_of_a_judges_replies_decides(ledger: Ledger) -> None:
    done = await judged(ledger, "Hm.", judgement("Yes"))
    assert isinstance(done, CoTSample)
    assert done.judge_reply == judgement("Yes")
    assert [row[1] for row in verdicts(ledger)] == ["unscored", "yes"]


@pytest.mark.parametrize(
    ("failed", "rejected"),
    [
        (Reason.CALL_FAILED, Reason.CALL_FAILED),
        (Reason.BAD_REQUEST, Reason.BAD_REQUEST),
        (Reason.REFUSED, Reason.UNSCORED),
        (Reason.TRUNCATED, Reason.UNSCORED),
        (Reason.EMPTY_REPLY, Reason.UNSCORED),
    ],
)
async def test_a_judge_that_cannot_be_reached_is_a_failed_call_and_one_that_says_nothing_unscored(
    ledger: Ledger, failed: Reason, rejected: Reason
) -> None:
    """`--retry-failed` gives the first kind another chance; the second had its say."""
    done = await judged(ledger, CallFailure(failed, "so it was"))
    assert isinstance(done, Rejection)
    assert (done.step, done.reason) == (Step.FILTER, rejected)
    assert "so it was" in done.detail


LEAK = "A ball rolls. The correct answer is A."


async def test_a_leak_is_rejected_flagged_and_not_judged(ledger: Ledger) -> None:
    calls = ScriptedCalls(judgement("Yes"))
    done = await filter_observation(verified(LEAK), calls=calls, ledger=ledger, settings=SETTINGS)
    assert isinstance(done, Rejection)
    assert (done.step, done.reason) == (Step.FILTER, Reason.ANSWER_LEAK)
    assert calls.requests == []
    assert verdicts(ledger) == [(0, None, None, True, False)]


async def test_an_allowed_leak_is_judged_and_stays_flagged(ledger: Ledger) -> None:
    done = await judged(ledger, judgement("Yes"), observation=LEAK, allow_leaks=True)
    assert isinstance(done, CoTSample)
    assert verdicts(ledger) == [(0, "yes", None, True, True)]
