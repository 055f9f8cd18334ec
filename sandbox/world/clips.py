"""The scripted world in memory: things and words that come and go, second by second.

A clip lasts `cells` seconds; one second is one *cell*, the unit in which everything happens.
Some things are seen for one cell only (*momentary*), the others last: a question about a momentary
thing can be answered from one second of the clip and from no other.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

NOTICE = "sandbox: rendered from a scripted world, not real footage"
PLACES = ("top left", "top right", "bottom left", "bottom right")
COLOURS = ("red", "blue", "green", "yellow")
SHAPES = ("square", "circle", "triangle", "cross")
WORDS = (
    *("BOAT", "CAKE", "DOOR", "DRUM", "FISH", "HAND"),
    *("KITE", "LAMP", "LEAF", "MOON", "ROAD", "WIND"),
)
Deed = Literal["stays", "moves", "hides", "blinks"]


@dataclass(frozen=True)
class WorldConfig:
    """What can happen in a clip. Counts given as pairs are (least, most)."""

    name: str
    cells: int
    frames_per_cell: int
    pixels: int
    num_things: tuple[int, int]
    num_momentary: tuple[int, int]
    lasting_cells: tuple[int, int]
    slots_per_place: int
    has_distinct_times: bool
    deeds: tuple[Deed, ...]
    words: tuple[str, ...]
    tells_leaving: bool
    has_number_options: bool
    sums: tuple[int, ...]
    kinds: tuple[str, ...]
    still_kinds: tuple[str, ...]
    still_sums: tuple[int, ...]
    noise: float
    crf: int

    @property
    def frames(self) -> int:
        """Frames of a clip's file; its frame rate is `frames_per_cell` per second."""
        return self.cells * self.frames_per_cell

    def frames_of(self, cells: tuple[int, ...]) -> tuple[int, ...]:
        """Indices of the file's frames within `cells`."""
        step = self.frames_per_cell
        return tuple(cell * step + i for cell in cells for i in range(step))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, read back by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "WorldConfig":
        """The configuration that `to_json` wrote."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**values)


TINY = WorldConfig(
    name="tiny",
    cells=4,
    frames_per_cell=2,
    pixels=56,
    num_things=(1, 3),
    num_momentary=(1, 2),
    lasting_cells=(2, 3),
    slots_per_place=1,
    has_distinct_times=True,
    deeds=("stays",),
    words=(),
    tells_leaving=False,
    has_number_options=True,
    sums=(3, 4, 5, 6),
    kinds=("colour", "shape", "when", "where", "count"),
    still_kinds=("still_colour", "still_shape", "still_where", "still_count"),
    still_sums=(5, 6, 7, 8),
    noise=6.0,
    crf=18,
)
# One-object clips are easily answered by a model that has learned anything; these are not.
THREE = replace(TINY, name="three", num_things=(3, 3))
FULL = WorldConfig(
    name="full",
    cells=8,
    frames_per_cell=4,
    pixels=112,
    num_things=(4, 6),
    num_momentary=(2, 3),
    lasting_cells=(3, 8),
    slots_per_place=2,
    has_distinct_times=False,
    deeds=("stays", "moves", "hides", "blinks"),
    words=WORDS,
    tells_leaving=True,
    has_number_options=False,
    sums=(9, 10, 11, 12, 13, 14, 15, 16),
    kinds=(
        *("colour", "shape", "when", "where", "after", "compare"),
        *("count", "sum", "blinks", "word", "object", "deed"),
        *("duration", "gap", "span", "word_span"),
    ),
    still_kinds=(
        *("still_colour", "still_shape", "still_where", "still_count"),
        *("still_sum", "still_word", "still_object"),
    ),
    still_sums=(5, 6, 7, 8, 9, 10),
    noise=4.0,
    crf=18,
)
PRESETS = {config.name: config for config in (FULL, TINY, THREE)}


@dataclass(frozen=True)
class Thing:
    """A coloured shape. It is there in cells `[enters, leaves)`, in `slot` of its place.

    `deed_cells` are the cells in which it does what `deed` says: the cell in which it moves to
    `moves_to`, is hidden by a curtain, or blinks (vanishes for that cell).
    """

    colour: str
    shape: str
    place: str
    enters: int
    leaves: int
    slot: int
    radius: float
    dx: float
    dy: float
    deed: Deed = "stays"
    deed_cells: tuple[int, ...] = ()
    moves_to: str = ""

    @property
    def name(self) -> str:
        """Colour and shape: no two things of a clip share both."""
        return f"{self.colour} {self.shape}"

    @property
    def is_momentary(self) -> bool:
        """True when it is seen in one cell only."""
        return self.leaves - self.enters == 1

    @property
    def visible_cells(self) -> tuple[int, ...]:
        """The cells in which it is seen."""
        off = self.deed_cells if self.deed in ("hides", "blinks") else ()
        return tuple(cell for cell in range(self.enters, self.leaves) if cell not in off)


@dataclass(frozen=True)
class Word:
    """A word written at a place during cells `[enters, leaves)`."""

    text: str
    place: str
    enters: int
    leaves: int

    @property
    def is_momentary(self) -> bool:
        """True when it is shown in one cell only."""
        return self.leaves - self.enters == 1

    @property
    def visible_cells(self) -> tuple[int, ...]:
        """The cells in which it is shown."""
        return tuple(range(self.enters, self.leaves))


@dataclass(frozen=True)
class Clip:
    """A clip (`kind` video) or a still (`kind` image, one cell), before it is rendered."""

    name: str
    kind: Literal["video", "image"]
    things: tuple[Thing, ...]
    words: tuple[Word, ...]
    noise_seed: int

    @property
    def path(self) -> str:
        """Where its file lies under the media root."""
        return f"videos/{self.name}.mp4" if self.kind == "video" else f"images/{self.name}.png"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, read back by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Clip":
        """The clip that `to_json` wrote; other keys of a truth file are ignored."""
        things = tuple(
            Thing(**{**thing, "deed_cells": tuple(thing["deed_cells"])}) for thing in data["things"]
        )
        words = tuple(Word(**word) for word in data["words"])
        own = {field.name: data[field.name] for field in fields(cls)}
        return cls(**{**own, "things": things, "words": words})
