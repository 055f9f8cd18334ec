"""Rows of the dataset on its card, each with a picture of the frames that its teacher saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.html_page import spread_places
from media.encoding import film_strip
from media.frames import MediaError
from media.store import FrameStore
from pipeline.exports.parquet_files import num_rows_of, rows_at
from schemas.dataset_rows import media_of_row
from schemas.questions import strip_answer_tags

NUM_EXAMPLES = 3
_FRAMES, _HEIGHT = 6, 108  # of a picture; pixels
_MOST_CHARACTERS = 700  # of a text


@dataclass(frozen=True)
class CardExample:
    """A row as the card shows it; `strip` is a PNG, None where its media cannot be read."""

    problem: str
    options: tuple[str, ...]
    gold: str
    texts: Mapping[str, str]
    medium: str
    strip: bytes | None


async def card_examples(dataset: Path, frames: FrameStore) -> tuple[CardExample, ...]:
    """Some rows of a written dataset, evenly spread over it."""
    places = spread_places(num_rows_of(dataset), NUM_EXAMPLES)
    return tuple([await _example(row, frames) for row in rows_at(dataset, places)])


async def _example(row: Mapping[str, Any], frames: FrameStore) -> CardExample:
    medium = media_of_row(row)[0]
    try:
        encoded = await frames.load(medium)
        chosen = spread_places(len(encoded), _FRAMES)
        strip = film_strip([encoded.jpegs[place] for place in chosen], height=_HEIGHT)
    except MediaError:
        strip = None
    names = ("observation", "think", "answer", "judge_reply")
    return CardExample(
        problem=_shortened(row["problem"]),
        options=tuple(map(_shortened, row["options"])),
        gold=strip_answer_tags(row["solution"]),
        texts={name.replace("_", "'s ", 1): _shortened(row[name]) for name in names},
        medium=medium.path,
        strip=strip,
    )


def pictures_of(examples: Sequence[CardExample]) -> dict[str, bytes]:
    """The pictures of those that have one, by file name."""
    return {
        f"row-{number}.png": example.strip
        for number, example in enumerate(examples, 1)
        if example.strip is not None
    }


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} …"
