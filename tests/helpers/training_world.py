"""A folder of small clips and stills, and tiny models, for tests of training and evaluation."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from schemas.prompting import task_prompt
from schemas.questions import MediaRef, ProblemType, VideoQuestion

FAMILIES = ("qwen2.5-vl", "qwen3-vl", "qwen3.5")


def write_clip(
    path: Path,
    *,
    num_frames: int = 8,
    rate: int = 2,
    size: tuple[int, int] = (56, 56),
    seed: int = 0,
    times_ms: Sequence[int] | None = None,
) -> Path:
    """Frames of (height, width) that differ from clip to clip and within a clip."""
    from helpers.media_clips import make_clip  # benchmarks use the rest where PyAV is missing

    draw = np.random.default_rng(seed)
    height, width = size
    pictures = np.empty((num_frames, height, width, 3), np.uint8)
    for picture in pictures:
        picture[:] = draw.integers(0, 255, 3)
        picture[: height // 2, : width // 2] = draw.integers(0, 255, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_clip(
        path,
        pictures=list(pictures),
        rate=rate,
        times_ms=times_ms,
        codec_options={"crf": "10"},
        pixel_format="yuv444p",
    )


def write_still(path: Path, *, size: tuple[int, int] = (56, 56), seed: int = 0) -> Path:
    """A picture of (height, width)."""
    draw = np.random.default_rng(1000 + seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return path


def question(
    *paths: str, problem: str = "Which colour is first?", answer: str = "A", **more: Any
) -> VideoQuestion:
    """A multiple choice question about files; pictures are told by their ending."""
    return VideoQuestion(
        problem=problem,
        options=("A. red", "B. blue"),
        solution=answer,
        media=tuple(
            MediaRef(kind="image" if path.endswith(".png") else "video", path=path)
            for path in paths
        ),
        problem_type=ProblemType.MULTIPLE_CHOICE,
        **more,
    )


@cache
def tiny_model_folder(family: str) -> Path:
    """A folder with a tiny random model of the family, made once per process."""
    from sandbox.models.tiny_models import TinySize, save_tiny_model

    folder = Path(mkdtemp(prefix="p2r-tiny-")) / family
    return save_tiny_model(family, folder, size=TinySize(layers=2))  # type: ignore[arg-type]


def dataset_row(
    asked: VideoQuestion,
    *,
    word: str = "red",
    teacher: str = "B",
    think_sentences: int = 1,
    **columns: Any,
) -> dict[str, Any]:
    """A row of a built dataset, as far as training reads it."""
    observation = f"I need to notice the {word} object."
    think = " ".join([f"It is {word}, so it is first."] * think_sentences)
    row = {
        "problem_id": "",
        "problem": asked.problem,
        "options": list(asked.options),
        "solution": f"<answer>{asked.solution}</answer>",
        "problem_type": asked.problem_type.value,
        "data_source": "",
        "question_id": asked.question_id,
        "observation": observation,
        "think": think,
        "answer": teacher,
        "output": f"<observation>{observation}</observation> <think>{think}</think>"
        f"<answer>{teacher}</answer>",
        "prompt_id": task_prompt(asked, "p2r").prompt_id,
        "paths": [ref.path for ref in asked.media],
        "kinds": [ref.kind for ref in asked.media],
        "level": "",
        "time_clues": [],
    }
    return row | columns


def write_dataset(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """OUT of a build with these rows."""
    (folder / "dataset").mkdir(parents=True)
    schema = pa.Table.from_pylist([rows[0]]).schema
    index = schema.get_field_index("time_clues")
    schema = schema.set(index, pa.field("time_clues", pa.list_(pa.list_(pa.float64()))))
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, folder / "dataset" / "train-00000-of-00001.parquet")
    return folder


def small_world(folder: Path, *, num_rows: int = 8) -> tuple[Path, Path]:
    """(media root, OUT of a build): each row has a clip of its own, of 8 frames of 56 x 56."""
    media = folder / "media"
    rows = []
    for number in range(num_rows):
        write_clip(media / f"clip{number}.mp4", seed=number)
        word = ("red", "blue", "green", "yellow")[number % 4]
        asked = question(f"clip{number}.mp4", answer="AB"[number % 2])
        rows.append(dataset_row(asked, word=word, think_sentences=1 + number % 3))
    return media, write_dataset(folder / "cot", rows)
