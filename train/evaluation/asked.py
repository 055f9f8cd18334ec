"""Which questions are asked, and whose frames are shown with each."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from schemas.annotations import UnreadableRow, read_questions
from schemas.config import UsageError
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from train.evaluation.options import EvaluateConfig

Media = tuple[MediaRef, ...]

# Some question: prompt files have an id whatever is asked.
SPECIMEN = VideoQuestion(
    problem="?",
    solution="?",
    media=(MediaRef(kind="video", path="?"),),
    problem_type=ProblemType.FREE_FORM,
)


@dataclass(frozen=True)
class Asked:
    """The questions in file order, and the rows that are none, each with its reason.

    `pool` also holds the questions beyond --limit: where the clips of --shuffle-videos come from,
    so that a raised limit shows nobody another clip.
    """

    questions: tuple[VideoQuestion, ...]
    unreadable: tuple[str, ...]
    pool: tuple[VideoQuestion, ...] = ()


def read_asked(config: EvaluateConfig) -> Asked:
    """The question file as the options say. Raises UsageError where it holds no question."""
    assert config.questions is not None
    try:
        rows = read_questions(
            config.questions, format=config.format, strip_prefix=config.strip_prefix
        )
        read = list(islice(rows, config.limit))
        beyond = list(rows) if config.shuffle_videos else []
    except ValueError as error:
        raise UsageError(f"--questions: {error}") from None
    questions = tuple(row for row in read if isinstance(row, VideoQuestion))
    unreadable = tuple(_told(row) for row in read if isinstance(row, UnreadableRow))
    if not questions:
        raise UsageError(
            f"--questions {config.questions} has no question that --format {config.format} can "
            f"read; the first row: {unreadable[0] if unreadable else 'there is none'}"
        )
    others = tuple(row for row in beyond if isinstance(row, VideoQuestion))
    return Asked(questions, unreadable, (*questions, *others))


def shuffled_media(questions: Sequence[VideoQuestion], seed: int) -> dict[Media, Media]:
    """For the media of each question another question's, of the same kinds.

    The distinct media go round in a circle of random order, so each is shown in the place of
    exactly one other. Media that are alone of their kinds are left out: nothing can stand in their
    place.
    """
    alike: dict[tuple[str, ...], list[Media]] = defaultdict(list)
    distinct = {question.media for question in questions}
    for media in sorted(distinct, key=lambda refs: [(ref.kind, ref.path) for ref in refs]):
        alike[tuple(ref.kind for ref in media)].append(media)
    shown: dict[Media, Media] = {}
    for circle in alike.values():
        random.Random(f"shuffled media {seed}").shuffle(circle)
        if len(circle) > 1:
            shown |= zip(circle, [*circle[1:], circle[0]], strict=True)
    return shown


def batches_of(
    questions: Sequence[VideoQuestion], length: Mapping[Media, int], size: int
) -> Iterator[tuple[VideoQuestion, ...]]:
    """Questions of like length together, the longest first, those about one clip side by side.

    `length` is the most tokens that media can become. The cut depends on the questions alone, so a
    resumed run computes the same batches.
    """
    order = sorted(
        questions,
        key=lambda one: (-length[one.media], [ref.path for ref in one.media], one.row),
    )
    for first in range(0, len(order), size):
        yield tuple(order[first : first + size])


def _told(row: UnreadableRow) -> str:
    place = f"row {row.row}" if row.line is None else f"line {row.line}"
    return f"{place}: {row.reason.value}: {row.detail}"
