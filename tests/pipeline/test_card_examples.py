"""Rows of the dataset on its card, with the frames that the teacher saw."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.built_ledger import built_ledger
from helpers.cards import tables
from helpers.media_clips import make_clip, numbered_picture, read_number
from PIL import Image

from media.sampling import FrameSpec
from media.store import FrameStore
from pipeline.card import write_card
from pipeline.card_examples import card_examples
from pipeline.export import export_dataset
from pipeline.exports.parquet_files import num_rows_of, rows_at, write_parquet
from schemas.dataset_rows import read_dataset_rows


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Of the card's rows, 0 has a clip with pictures 0, 10, 20, ..., the others have none."""
    (tmp_path / "media" / "clips").mkdir(parents=True)
    pictures = [numbered_picture(10 * i) for i in range(12)]
    make_clip(tmp_path / "media" / "clips" / "000.mp4", pictures=pictures)
    return tmp_path / "media"


async def test_the_card_shows_rows_spread_over_the_dataset_with_their_frames(
    tmp_path: Path, media: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        built_ledger(out) as ledger,
        FrameStore(media, spec=FrameSpec("uniform:12"), cache_dir=None) as frames,
    ):
        export_dataset(ledger, out)
        examples = await card_examples(out / "dataset", frames)
        card = write_card(ledger, out, examples=examples).read_text()
    rows = list(read_dataset_rows(sorted((out / "dataset").glob("*.parquet"))))
    shown = tables(card)
    for number, place in enumerate((0, len(rows) // 3, 2 * len(rows) // 3), 1):
        row = rows[place]
        (cells,) = (found for name, found in shown.items() if name.startswith(f"row {number}/"))
        assert ["observation", row["observation"]] in cells
        assert ["answer", row["answer"]] in cells
        assert "judge's reply" in [name for name, _ in cells]
    assert "](pictures/row-1.png)" in card
    assert "](pictures/row-2.png)" not in card
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        "funnel.png",
        "lengths.png",
        "row-1.png",
    ]
    strip = Image.open(io.BytesIO((out / "pictures" / "row-1.png").read_bytes())).convert("RGB")
    assert strip.size == (6 * 96 + 5 * 4, 64)
    frames_shown = [np.asarray(strip)[:, left : left + 96] for left in range(0, 600, 100)]
    assert [read_number(frame) for frame in frames_shown] == [0, 20, 40, 60, 80, 100]


async def test_a_long_text_is_cut_and_hostile_text_stays_text(tmp_path: Path, media: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        built_ledger(out) as ledger,
        FrameStore(media, spec=FrameSpec("uniform:2"), cache_dir=None) as frames,
    ):
        export_dataset(ledger, out)
        examples = await card_examples(out / "dataset", frames)
        card = write_card(ledger, out, examples=examples).read_text()
    assert max(len(text) for one in examples for text in one.texts.values()) <= 702
    # the options of even rows are `A. red | green`, `B. *blue*`, `C. <b>none</b>`
    assert "<b>" not in card
    assert r"red \| green" in card


def test_rows_are_found_across_files_and_row_groups(tmp_path: Path) -> None:
    schema = pa.schema([("number", pa.int64())])
    rows = ({"number": number} for number in range(50))
    write_parquet(rows, tmp_path, schema, rows_per_file=20, rows_per_group=6)
    assert num_rows_of(tmp_path) == 50
    places = [0, 5, 6, 19, 20, 33, 49]
    assert [row["number"] for row in rows_at(tmp_path, places)] == places


async def test_a_card_without_rows_shows_none(tmp_path: Path, media: Path) -> None:
    with FrameStore(media, spec=FrameSpec("uniform:2"), cache_dir=None) as frames:
        (tmp_path / "dataset").mkdir()
        assert await card_examples(tmp_path / "dataset", frames) == ()
