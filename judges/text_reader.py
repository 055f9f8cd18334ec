"""The text reader: a language model that answers questions without their video.

It is given the question alone, or the question with an observation in the place of the video, and
answers several times with its options in other orders. How often it is correct says whether the
question needs the video (blind), and whether an observation carries the answer: the text-only
reader of VideoP2R (arXiv 2511.11113, figure 4) as a filter.

Its answers are scored by the rule that scores everybody's (`judges.scoring.answer_score`). A reply
that names no answer is not correct; a call that brought no usable reply is unscored, which is
neither.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial

from judges.backends.base import ChatRequest, Reply, TextPart
from judges.backends.call_records import CallFailure, CallResult
from judges.option_permutations import permuted_question
from judges.scoring.answer_score import check_answer, extract_answer
from judges.sufficiency import Caller, escape_fences, prompt_file, verdict_of_failure
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.samples import Reason, Sufficiency, UnscoredReason
from schemas.serialization import content_id

TEMPLATE = "think-answer"
READER_PROMPTS = ("read-blind", "read-observation")
_PLACEHOLDER = re.compile(r"\{(task|observation)\}")
# Calls that brought a reply without anything usable. Others failed, and may be made again.
UNSCORED_FAILURES = frozenset({Reason.EMPTY_REPLY, Reason.TRUNCATED, Reason.REFUSED})


@dataclass(frozen=True)
class ReaderSettings:
    """How often and how the reader is asked; `threshold` is the score of a correct answer.

    A deliberate repeat has a `first_draw` beyond the draws of the one before.
    `sends_seed` sends each sample's number as seed, to servers that sample and take one.
    """

    samples: int = 4
    max_tokens: int = 512
    threshold: float = 0.6
    sampling: tuple[tuple[str, float], ...] = ()
    sends_seed: bool = False
    first_draw: int = 0


@dataclass(frozen=True)
class ReaderAnswer:
    """One answer: its text, its task metric, and whether it is correct; None where unscored.

    `permutation` is the number of `judges.option_permutations`, 0 for the options as they stand.
    """

    sample: int
    permutation: int
    call_key: str
    answer: str | None = None
    score: float | None = None
    is_correct: bool | None = None
    unscored_reason: UnscoredReason | None = None


@dataclass(frozen=True)
class Reading:
    """All answers of one reader to one question; `failure` is the first call that failed for good.

    With a failure the answers are not complete, and nothing follows from them.
    """

    answers: tuple[ReaderAnswer, ...]
    prompt_id: str
    failure: CallFailure | None = None

    @property
    def num_correct(self) -> int:
        """How many answers are correct."""
        return sum(answer.is_correct is True for answer in self.answers)

    @property
    def num_unscored(self) -> int:
        """How many replies could not be used."""
        return sum(answer.is_correct is None for answer in self.answers)

    @property
    def rate(self) -> float:
        """Share of correct answers among all samples; unscored ones count as not correct."""
        return self.num_correct / len(self.answers)

    def reaches(self, num_needed: int) -> bool | None:
        """Whether at least `num_needed` answers are correct; None where unscored ones decide."""
        if self.num_correct >= num_needed:
            return True
        return None if self.num_correct + self.num_unscored >= num_needed else False


def reader_prompt(
    question: VideoQuestion, observation: str | None, template: str = TEMPLATE
) -> tuple[str, str]:
    """The reader's prompt, and the id of the two prompt files that it was made from.

    Without an observation (None) the question stands alone. Placeholders are filled in one pass; an
    observation cannot close its tag.
    """
    task = task_prompt(question, template)
    text, _ = prompt_file(READER_PROMPTS[observation is not None])
    filled = {"task": task.text, "observation": escape_fences(observation or "")}
    prompt = _PLACEHOLDER.sub(lambda found: filled[found[1]], text.removesuffix("\n"))
    return prompt, content_id("prompt", {"task": task.prompt_id, "reader": text})


def reader_requests(
    question: VideoQuestion, observation: str | None, settings: ReaderSettings, step: str
) -> list[tuple[ChatRequest, VideoQuestion, int]]:
    """Each sample's request, the question as it is asked there, and the permutation's number.

    The order of options follows from the question's text: a reader meets the same orders with an
    observation and without one, unless the observation speaks of options by letter, and questions
    of one text about several videos are asked once. All requests are booked on the question as
    published.
    """
    requests = []
    for sample in range(settings.samples):
        asked, number = _asked(question, observation, sample)
        sampling = settings.sampling
        if settings.sends_seed:
            sampling = (*sampling, ("seed", float(sample)))
        request = ChatRequest(
            parts=(TextPart(reader_prompt(asked, observation)[0]),),
            max_tokens=settings.max_tokens,
            sampling=sampling,
            draw=settings.first_draw + sample,
            step=step,
            question_id=question.question_id,
        )
        requests.append((request, asked, number))
    return requests


async def read_answers(
    calls: Caller,
    question: VideoQuestion,
    observation: str | None,
    *,
    settings: ReaderSettings,
    step: str,
) -> Reading:
    """The reader's answers, all samples at once. Raises StopRequested."""
    requests = reader_requests(question, observation, settings, step)
    results = await asyncio.gather(
        *(calls.call(request) for request, _, _ in requests), return_exceptions=True
    )
    answers, failures = [], []
    for sample, ((_, asked, number), result) in enumerate(zip(requests, results, strict=True)):
        if isinstance(result, BaseException):
            raise result  # the others have ended too
        if isinstance(result.outcome, CallFailure):
            failures.append(result.outcome)
        answers.append(_answer(sample, asked, number, result, settings.threshold))
    final = (failure for failure in failures if failure.reason not in UNSCORED_FAILURES)
    prompt_id = reader_prompt(question, observation)[1]
    return Reading(tuple(answers), prompt_id, next(final, None))


def is_above_blind(with_observation: Reading, blind: Reading, margin: float) -> bool | None:
    """Whether the rate with the observation exceeds the blind rate by `margin`; None: unscored
    replies decide.

    A reader that guesses right without the video proves nothing about an observation.
    """
    samples = len(with_observation.answers)
    lowest, highest = _bounds(with_observation)
    blind_lowest, blind_highest = _bounds(blind)
    tolerance = 0.5 / (samples * len(blind.answers))  # below the smallest step of a difference
    if lowest - blind_highest >= margin - tolerance:
        return True
    return None if highest - blind_lowest >= margin - tolerance else False


def finding_of(with_observation: Reading, blind: Reading, margin: float) -> str:
    """Both rates in words, for people."""
    return (
        f"{correct_of(with_observation.answers)} answers from the observation are correct, "
        f"{correct_of(blind.answers)} without it; margin {margin:g}"
    )


def sufficiency_of(suffices: bool | None, reading: Reading) -> Sufficiency:
    """The finding as a verdict; unscored for the reason of the first reply that was unusable."""
    if suffices is not None:
        return Sufficiency("yes" if suffices else "no")
    reasons = (answer.unscored_reason for answer in reading.answers)
    first = next((reason for reason in reasons if reason is not None), UnscoredReason.NO_REPLY)
    return Sufficiency("unscored", first)


def _bounds(reading: Reading) -> tuple[float, float]:
    """The lowest and the highest rate that unscored replies leave open."""
    return reading.rate, reading.rate + reading.num_unscored / len(reading.answers)


def _asked(
    question: VideoQuestion, observation: str | None, sample: int
) -> tuple[VideoQuestion, int]:
    """The question of one sample: as it stands first, then in other orders as long as there are."""
    place = sample % factorial(len(question.options))
    if not place:
        return question, 0
    number = 2 * place - 1  # odd numbers are orders, even ones other letters
    seed = content_id("orders", [question.problem, *question.options])
    changed = permuted_question(question, observation or "", number, seed)
    return (question, 0) if changed is None else (changed, number)


def _answer(
    sample: int, asked: VideoQuestion, number: int, result: CallResult, threshold: float
) -> ReaderAnswer:
    if isinstance(result.outcome, CallFailure):
        reason = verdict_of_failure(result.outcome).unscored_reason
        return ReaderAnswer(sample, number, result.call_key, unscored_reason=reason)
    reply: Reply = result.outcome
    answer = extract_answer(reply.text, asked)
    if answer is None:
        return ReaderAnswer(sample, number, result.call_key, None, 0.0, False)
    found = check_answer(asked, answer, threshold=threshold)
    return ReaderAnswer(sample, number, result.call_key, found.extracted, found.score, found.passed)


def correct_of(answers: Sequence[ReaderAnswer]) -> str:
    """`3 of 4`, for people; with the unscored ones where there are some."""
    correct = sum(answer.is_correct is True for answer in answers)
    unscored = sum(answer.is_correct is None for answer in answers)
    return f"{correct} of {len(answers)}" + (f" ({unscored} unscored)" if unscored else "")
