"""The questions of an evaluation, the frames that are shown with each, and their batches."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from cli.config import UsageError
from schemas.annotations.columns import parse_columns
from schemas.annotations.reader import UnreadableRow, read_questions
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from train.data.frame_loader import FrameLoader
from train.evaluation.options import EvaluateConfig

Media = tuple[MediaRef, ...]

# Some question: prompt files have an id whatever the question.
SPECIMEN = VideoQuestion(
    problem="?",
    solution="?",
    media=(MediaRef(kind="video", path="?"),),
    problem_type=ProblemType.FREE_FORM,
)


@dataclass(frozen=True)
class EvalQuestions:
    """The questions in file order, and the rows that are none, each with its reason.

    `pool` also holds the questions beyond --limit: the clips of --shuffle-videos come from it, so
    a higher limit swaps the first questions' clips as before.
    """

    questions: tuple[VideoQuestion, ...]
    unreadable: tuple[str, ...]
    pool: tuple[VideoQuestion, ...] = ()


def read_eval_questions(config: EvaluateConfig) -> EvalQuestions:
    """The questions that the options name. Raises UsageError where the file holds none."""
    assert config.questions is not None
    try:
        rows = read_questions(
            config.questions,
            format=config.format,
            strip_prefix=config.strip_prefix,
            columns=parse_columns(config.columns),
            media_root=config.media_root,
        )
        read = list(islice(rows, config.limit))
        beyond = list(rows) if config.shuffle_videos else []
    except ValueError as error:
        raise UsageError(f"--questions: {error}") from None
    questions = tuple(row for row in read if isinstance(row, VideoQuestion))
    unreadable = tuple(_reason(row) for row in read if isinstance(row, UnreadableRow))
    if not questions:
        raise UsageError(
            f"--questions {config.questions} has no question that --format {config.format} can "
            f"read; the first row: {unreadable[0] if unreadable else 'there is none'}"
        )
    others = tuple(row for row in beyond if isinstance(row, VideoQuestion))
    return EvalQuestions(questions, unreadable, (*questions, *others))


def frame_loader(config: EvaluateConfig) -> FrameLoader:
    """Frames of the files under --media-root; close it. Raises UsageError for unusable options."""
    assert config.media_root is not None
    return FrameLoader.from_options(
        config,
        config.media_root,
        workers=config.decode_workers,
        cache_max_bytes=int(config.frame_cache_gb * 1e9),
    )


def shuffled_media(questions: Sequence[VideoQuestion], seed: int) -> dict[Media, Media]:
    """For the media of each question those of another question, of the same media types.

    The distinct media are shifted by one in a random order, so each is shown in exactly one other's
    place. Media that are alone of their types are left out: there is nothing to swap them with.
    """
    alike: dict[tuple[str, ...], list[Media]] = defaultdict(list)
    distinct = {question.media for question in questions}
    for media in sorted(distinct, key=_place):
        alike[tuple(ref.kind for ref in media)].append(media)
    shown: dict[Media, Media] = {}
    for order in alike.values():
        random.Random(f"shuffled media {seed}").shuffle(order)
        if len(order) > 1:
            shown |= zip(order, [*order[1:], order[0]], strict=True)
    return shown


def batches_of(
    questions: Sequence[VideoQuestion], length: Mapping[Media, int], size: int
) -> Iterator[tuple[VideoQuestion, ...]]:
    """Batches of questions of similar length, longest first, those about one clip side by side.

    `length` is the most tokens that media can become. The batches depend on the questions alone, so
    a resumed run computes the same ones.
    """
    order = sorted(
        questions,
        key=lambda one: (-length[one.media], [ref.path for ref in one.media], one.row),
    )
    for first in range(0, len(order), size):
        yield tuple(order[first : first + size])


def _place(media: Media) -> list[tuple[str, str, tuple[float, ...]]]:
    return [(ref.kind, ref.path, ref.span or ()) for ref in media]


def _reason(row: UnreadableRow) -> str:
    place = f"row {row.row}" if row.line is None else f"line {row.line}"
    return f"{place}: {row.reason.value}: {row.detail}"
