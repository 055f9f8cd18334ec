"""The steps of a text reader: is the question answered without its video, and does an observation
carry the answer?

Both ask the same reader in the same way (`judges.text_reader`), once with the question alone and
once with a trace's observation in the place of the video. All answers and what followed from them
are recorded in the ledger, kept or not.
"""

from dataclasses import dataclass, field
from typing import Literal

from judges.sufficiency import Caller
from judges.text_reader import (
    ReaderSettings,
    Reading,
    correct_of,
    finding_of,
    is_above_blind,
    read_answers,
    sufficiency_of,
)
from schemas.ledger.ledger import Ledger
from schemas.ledger.rows import (
    Evidence,
    ReaderAnswerRow,
    ReaderCheckRow,
    SufficiencyRow,
    Verdict,
)
from schemas.questions import VideoQuestion
from schemas.samples import Reason, Rejection, Step

CALLS_STEP = "filter-answer"  # under which the ledger books answers from observations
BlindAction = Literal["mark", "reject"]


@dataclass(frozen=True)
class ReaderStep:
    """Who reads, and what follows from its answers.

    A question is answerable blind where `num_needed` samples are correct (None: all of them). An
    observation suffices where its rate of correct answers exceeds the blind rate by `margin`.
    """

    reader: str
    settings: ReaderSettings = field(default_factory=ReaderSettings)
    num_needed: int | None = None
    action: BlindAction = "mark"
    margin: float = 0.5

    @property
    def needed(self) -> int:
        """How many correct samples make a question answerable blind."""
        return self.settings.samples if self.num_needed is None else self.num_needed


async def check_blind(
    question: VideoQuestion, *, calls: Caller, ledger: Ledger, step: ReaderStep
) -> Reading | Rejection:
    """The answers without the video, recorded; or the rejection that follows from them.

    Where questions are rejected, so are those for which the replies decide nothing.
    """
    reading = await read_answers(
        calls, question, None, settings=step.settings, step=Step.BLIND.value
    )
    if reading.failure is not None:
        return Rejection(Step.BLIND, reading.failure.reason, reading.failure.detail)
    answerable = reading.reaches(step.needed)
    _record(ledger, question, reading, _VERDICTS[answerable], step, evidence="none")
    if step.action == "mark" or answerable is False:
        return reading
    found = f"{correct_of(reading.answers)} answers without the video are correct"
    if answerable is None:
        return Rejection(Step.BLIND, Reason.UNSCORED, f"{found}, which decides nothing")
    return Rejection(Step.BLIND, Reason.ANSWERABLE_BLIND, found)


async def check_observation(
    question: VideoQuestion,
    attempt: int,
    observation: str,
    blind: Reading,
    *,
    calls: Caller,
    ledger: Ledger,
    step: ReaderStep,
    judge_draw: int,
    leak_text: str | None,
) -> str | Rejection:
    """The reader's finding in words where the observation suffices, else the rejection.

    It is recorded as a verdict beside those of the judge; `judge_draw` is its number among them.
    """
    reading = await read_answers(
        calls, question, observation, settings=step.settings, step=CALLS_STEP
    )
    if reading.failure is not None:
        return Rejection(Step.FILTER, reading.failure.reason, reading.failure.detail)
    suffices = is_above_blind(reading, blind, step.margin)
    _record(
        ledger,
        question,
        reading,
        _VERDICTS[suffices],
        step,
        evidence="observation",
        attempt=attempt,
        blind=blind,
    )
    finding = finding_of(reading, blind, step.margin)
    ledger.add_sufficiency(
        SufficiencyRow.of_reply(
            question.question_id,
            attempt,
            sufficiency_of(suffices, reading),
            judge=step.reader,
            judge_draw=judge_draw,
            call_key=_deciding_call(reading),
            prompt_id=reading.prompt_id,
            reply=finding,
            leak_text=leak_text,
        )
    )
    if suffices is None:
        return Rejection(Step.FILTER, Reason.UNSCORED, finding)
    return finding if suffices else Rejection(Step.FILTER, Reason.INSUFFICIENT, finding)


_VERDICTS: dict[bool | None, Verdict] = {True: "yes", False: "no", None: "unscored"}


def _deciding_call(reading: Reading) -> str:
    """The call of the first usable reply, or of the first one."""
    usable = (answer for answer in reading.answers if answer.is_correct is not None)
    return next(usable, reading.answers[0]).call_key


def _record(
    ledger: Ledger,
    question: VideoQuestion,
    reading: Reading,
    verdict: Verdict,
    step: ReaderStep,
    *,
    evidence: Evidence,
    attempt: int = 0,
    blind: Reading | None = None,
) -> None:
    name = question.question_id
    check = ReaderCheckRow(
        question_id=name,
        evidence=evidence,
        draw=attempt,
        reader=step.reader,
        prompt_id=reading.prompt_id,
        samples=len(reading.answers),
        correct=reading.num_correct,
        unscored=reading.num_unscored,
        rate=reading.rate,
        blind_rate=None if blind is None else blind.rate,
        margin=None if blind is None else step.margin,
        verdict=verdict,
    )
    answers = [
        ReaderAnswerRow(
            question_id=name,
            evidence=evidence,
            draw=attempt,
            sample=answer.sample,
            permutation=answer.permutation,
            call_key=answer.call_key,
            answer=answer.answer,
            score=answer.score,
            correct=answer.is_correct,
            unscored_reason=answer.unscored_reason,
        )
        for answer in reading.answers
    ]
    ledger.add_reading(check, answers)
