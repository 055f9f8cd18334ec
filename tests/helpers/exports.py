"""Reading back what an export wrote."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from helpers.built_ledger import question

from schemas.questions import MediaRef, ProblemType, VideoQuestion

datasets.disable_progress_bars()
ACCEPTED = [row for row in range(30) if row not in (5, 7, 9, 11, 13, 15)]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def load(folder: Path, cache: Path) -> datasets.Dataset:
    return datasets.load_dataset(
        "parquet", data_files=f"{folder}/*.parquet", split="train", cache_dir=str(cache)
    )


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
