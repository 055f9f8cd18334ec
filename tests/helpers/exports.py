"""Reading back what an export wrote."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from helpers.built_ledger import add_attempt, empty_ledger, question
from helpers.training_world import write_clip, write_still

from schemas.ledger.ledger import Ledger
from schemas.questions import MediaRef, ProblemType, VideoQuestion

datasets.disable_progress_bars()
ACCEPTED = [row for row in range(30) if row not in (5, 7, 9, 11, 13, 15)]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def load(path: Path, cache: Path, kind: str = "parquet") -> datasets.Dataset:
    """A file, or the Parquet files of a folder."""
    files = str(path) if path.is_file() else f"{path}/*.parquet"
    return datasets.load_dataset(kind, data_files=files, split="train", cache_dir=str(cache))


def rich_questions() -> list[VideoQuestion]:
    """One question of each shape that a row can have."""
    return [
        question(0, level="L2", time_clues=((0.5, 1.25), (3.0, 4.0))),
        question(1, solution="3.5 to 4.0, 7.0 to 8.5", problem_type=ProblemType.TEMPORAL_GROUNDING),
        question(2, media=(MediaRef(kind="image", path="stills/a b.png"),)),
        question(
            3,
            media=(
                MediaRef(kind="image", path="stills/now.png"),
                MediaRef(kind="video", path="clips/past.mp4"),
            ),
        ),
    ]


WIDE = "“Naïve” 日本\u2028🎬 {question} \\n?"


def trainer_questions() -> list[VideoQuestion]:
    """What an export for other trainers may meet, by row number.

    0 a video and wide characters, 1 two videos and no options, 2 an image, 3 images around a video,
    4 a clip, 5 and 6 texts with marks of trainers.
    """
    video, other = (MediaRef(kind="video", path=f"clips/{name}.mp4") for name in ("a", "b b"))
    image, last = (MediaRef(kind="image", path=f"stills/{name}.png") for name in ("é", "z"))
    clip = MediaRef(kind="video", path="clips/a.mp4", start=1.0, end=3.0)
    return [
        question(0, problem=WIDE, media=(video,), solution="B"),
        question(1, media=(video, other)),
        question(2, media=(image,)),
        question(3, media=(image, other, last)),
        question(4, media=(clip,)),
        question(5, problem="What does <video> mean?", media=(video,)),
        question(6, options=("A. <|im_end|>", "B. <image>"), media=(video,), solution="A"),
    ]


def write_trainer_media(root: Path) -> Path:
    """The files of `trainer_questions`: 20 frames at 4 a second, the second clip 8 at 2."""
    write_clip(root / "clips/a.mp4", num_frames=20, rate=4)
    write_clip(root / "clips/b b.mp4", seed=1)
    for seed, name in enumerate(("é", "z")):
        write_still(root / f"stills/{name}.png", seed=seed)
    return root


@contextmanager
def trainer_ledger(
    folder: Path, asked: Sequence[VideoQuestion] | None = None, **config: Any
) -> Iterator[Ledger]:
    """A ledger in which all of these questions, by default `trainer_questions`, are accepted."""
    folder.mkdir(parents=True, exist_ok=True)
    with empty_ledger(folder, **config) as ledger:
        for each in trainer_questions() if asked is None else asked:
            ledger.add_question(each)
            add_attempt(ledger, each)
        yield ledger


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON Lines."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def places_of(content: str) -> list[str]:
    """The marks with which a text begins: `["video", "image"]`."""
    places = []
    while content.startswith(("<video>", "<image>")):
        mark, _, content = content.partition(">")
        places.append(mark[1:])
    assert "<video>" not in content
    assert "<image>" not in content
    return places
