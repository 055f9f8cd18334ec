"""The three steps: generate, verify, filter. Each returns its result or a Rejection.

Those of a text reader, which can go before them and into the filter, are `pipeline.reader_steps`.

VideoP2R (arXiv 2511.11113) section 3.1.1: a teacher sees frames and question and writes
observation, reasoning and answer; a rule drops what deviates from the template or scores below 0.6
on the task's metric; a judge that sees no pixels keeps a trace only if its observation alone
supports the answer. Every attempt, check and verdict is recorded in the ledger, kept or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from judges.answer_leaks import find_answer_leak
from judges.backends.base import ChatRequest, ImagePart, Part, Reply, TextPart
from judges.backends.calls import CallResult
from judges.scoring.answer_score import check_answer
from judges.sufficiency import Caller, judge_sufficiency
from judges.text_reader import UNSCORED_FAILURES, Reading
from media.frames import EncodedFrames
from pipeline.reader_steps import ReaderStep, check_observation
from schemas.ledger.ledger import Ledger
from schemas.ledger.rows import AnswerCheckRow, AttemptRow, SufficiencyRow
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.samples import CoTSample, Reason, Rejection, Step
from schemas.traces import TEMPLATES, Trace, TraceError, parse_trace

TEMPLATE = TEMPLATES["p2r"]
SufficiencyFilter = Literal["judge", "answer", "both"]


@dataclass(frozen=True)
class StepSettings:
    """Limits, thresholds, and the backends' specs as the user wrote them."""

    generator: str
    judge: str
    max_new_tokens: int = 1024
    threshold: float = 0.6
    judge_max_tokens: int = 512
    judge_retries: int = 2
    allow_leaks: bool = False
    sufficiency: SufficiencyFilter = "judge"
    reading: ReaderStep | None = None
    generator_sampling: tuple[tuple[str, float], ...] = ()
    judge_sampling: tuple[tuple[str, float], ...] = ()
    seed_attempts: bool = False


@dataclass(frozen=True)
class Generated:
    """The teacher's output of one attempt, parsed, or with the error that parsing raised."""

    question: VideoQuestion
    attempt: int
    output: str
    parsed: Trace | TraceError


@dataclass(frozen=True)
class Verified:
    """A well-formed trace whose answer passed its metric."""

    generated: Generated
    trace: Trace
    score: float


def generation_request(
    question: VideoQuestion, frames: Sequence[EncodedFrames], settings: StepSettings, attempt: int
) -> tuple[ChatRequest, str]:
    """The teacher's request and its prompt id: each frame after its number and time, then the task.

    `attempt` counts from 0 and makes repeated requests differ in the call cache.
    """
    parts: list[Part] = []
    for clip in frames:
        if clip.kind == "video":
            parts.append(
                TextPart(
                    f"Video, {clip.duration_seconds:.1f} s long, {len(clip.jpegs)} frames in order:"
                )
            )
        else:
            parts.append(TextPart("Image:"))
        for position, jpeg in enumerate(clip.jpegs):
            if clip.kind == "video":
                parts.append(TextPart(f"Frame {position + 1} at {clip.times[position]:.2f} s"))
            parts.append(ImagePart(clip.image_id(position), clip.width, clip.height, jpeg))
    prompt = task_prompt(question, TEMPLATE.name)
    parts.append(TextPart(prompt.text))
    sampling = settings.generator_sampling
    if settings.seed_attempts:
        sampling = (*sampling, ("seed", float(attempt)))
    request = ChatRequest(
        parts=tuple(parts),
        max_tokens=settings.max_new_tokens,
        sampling=sampling,
        draw=attempt,
        step=Step.GENERATE.value,
        question_id=question.question_id,
    )
    return request, prompt.prompt_id


async def generate(
    question: VideoQuestion,
    frames: Sequence[EncodedFrames],
    attempt: int,
    *,
    calls: Caller,
    ledger: Ledger,
    settings: StepSettings,
) -> Generated | Rejection:
    """Step one: ask the teacher once."""
    request, prompt_id = generation_request(question, frames, settings, attempt)
    result: CallResult = await calls.call(request)
    if not isinstance(result.outcome, Reply):
        return Rejection(Step.GENERATE, result.outcome.reason, result.outcome.detail)
    output = result.outcome.text
    parsed = _parse(output)
    trace = parsed if isinstance(parsed, Trace) else None
    clip = frames[0]
    ledger.add_attempt(
        AttemptRow(
            question_id=question.question_id,
            draw=attempt,
            call_key=result.call_key,
            output=output,
            observation=trace.get("observation") if trace else None,
            think=trace.get("think") if trace else None,
            answer=trace.get("answer") if trace else None,
            generator=settings.generator,
            prompt_id=prompt_id,
            media_id=clip.media_id,
            frame_spec=clip.spec.frame_spec_id,
            frame_indices=clip.indices,
            frame_times=clip.times,
        )
    )
    return Generated(question, attempt, output, parsed)


def verify(generated: Generated, *, ledger: Ledger, settings: StepSettings) -> Verified | Rejection:
    """Step two: check the format, then the task's metric against the threshold."""
    trace, question = generated.parsed, generated.question
    if isinstance(trace, TraceError):
        return Rejection(Step.VERIFY, Reason.MALFORMED_TRACE, str(trace))
    check = check_answer(question, trace.get("answer"), threshold=settings.threshold)
    ledger.add_answer_check(
        AnswerCheckRow(
            question_id=question.question_id,
            draw=generated.attempt,
            metric=check.metric,
            score=check.score,
            passed=check.passed,
            extracted=check.extracted,
        )
    )
    if not check.passed:
        return Rejection(
            Step.VERIFY,
            Reason.LOW_SCORE,
            f"{check.metric} {check.score:.3f} is below {settings.threshold:g}",
        )
    return Verified(generated, trace, check.score)


async def filter_observation(
    verified: Verified,
    *,
    calls: Caller | None,
    ledger: Ledger,
    settings: StepSettings,
    reader: Caller | None = None,
    blind: Reading | None = None,
) -> CoTSample | Rejection:
    """Step three: does the observation alone support the answer?

    The judge sees the question, the gold answer and the observation, no frames; a text `reader`
    sees question and observation, and its rate of correct answers is held against `blind`, that
    without an observation. With both, the reader is asked about what the judge lets through.
    """
    question, attempt = verified.generated.question, verified.generated.attempt
    observation = verified.trace.get("observation")
    leak = find_answer_leak(question, observation)
    if leak is not None and not settings.allow_leaks:
        # The trace is rejected anyway: record the flag without paying for a judge call.
        ledger.add_sufficiency(
            SufficiencyRow.of_leak(question.question_id, attempt, leak, judge=settings.judge)
        )
        return Rejection(Step.FILTER, Reason.ANSWER_LEAK, f"the observation says {leak!r}")
    found: _Judged | Rejection = _Judged("", 0)
    if settings.sufficiency != "answer":
        assert calls is not None
        found = await _judged(verified, leak, calls=calls, ledger=ledger, settings=settings)
    if isinstance(found, Rejection):
        return found
    words = found.reply
    if settings.sufficiency != "judge":
        assert settings.reading is not None
        assert reader is not None
        assert blind is not None
        finding = await check_observation(
            question,
            attempt,
            observation,
            blind,
            calls=reader,
            ledger=ledger,
            step=settings.reading,
            judge_draw=found.num_replies,
            leak_text=leak,
        )
        if isinstance(finding, Rejection):
            return finding
        words = "\n\n".join(text for text in (words, finding) if text)
    return CoTSample(
        question_id=question.question_id,
        draw=attempt,
        output=verified.generated.output,
        observation=observation,
        think=verified.trace.get("think"),
        answer=verified.trace.get("answer"),
        reward=verified.score,
        judge_reply=words,
    )


@dataclass(frozen=True)
class _Judged:
    """A judge's yes: its last reply, and how many it gave."""

    reply: str
    num_replies: int


async def _judged(
    verified: Verified,
    leak: str | None,
    *,
    calls: Caller,
    ledger: Ledger,
    settings: StepSettings,
) -> _Judged | Rejection:
    question, attempt = verified.generated.question, verified.generated.attempt
    outcome = await judge_sufficiency(
        calls,
        question,
        verified.trace.get("observation"),
        retries=settings.judge_retries,
        max_tokens=settings.judge_max_tokens,
        sampling=settings.judge_sampling,
    )
    judge_reply, num_replies = "", 0
    for reply in outcome.replies:
        judge_reply, num_replies = reply.reply, reply.judge_draw + 1
        ledger.add_sufficiency(
            SufficiencyRow.of_reply(
                question.question_id,
                attempt,
                reply.verdict,
                judge=settings.judge,
                judge_draw=reply.judge_draw,
                call_key=reply.call_key,
                prompt_id=outcome.prompt_id,
                reply=reply.reply,
                leak_text=leak,
            )
        )
    if outcome.failure is not None and outcome.failure.reason not in UNSCORED_FAILURES:
        return Rejection(Step.FILTER, outcome.failure.reason, outcome.failure.detail)
    if outcome.verdict.verdict == "unscored":
        detail = f"{outcome.verdict.unscored_reason} after {len(outcome.replies)} replies"
        if outcome.failure is not None:
            detail += f": {outcome.failure.detail}"
        return Rejection(Step.FILTER, Reason.UNSCORED, detail)
    if outcome.verdict.verdict == "no":
        return Rejection(Step.FILTER, Reason.INSUFFICIENT, "the judge says No")
    return _Judged(judge_reply, num_replies)


def _parse(output: str) -> Trace | TraceError:
    try:
        return parse_trace(output, TEMPLATE)
    except TraceError as error:
        return error
