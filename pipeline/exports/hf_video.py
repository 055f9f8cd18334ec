"""The dataset with a column that plays: `video`, the `Video` feature of Hugging Face's `datasets`.

    rows = load_dataset("parquet", data_files="OUT/hf-video-embedded/*.parquet", split="train")
    rows[0]["video"].get_frames_at([0, 10])          # torchcodec's decoder

`hf-video` names files by their absolute paths, `hf-video-embedded` holds their bytes: that one can
be moved, and played in the viewer of the Hub.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.exports.dataset import accepted_state
from pipeline.exports.parquet_files import (
    PARQUET_NAMES,
    VIDEO_SCHEMA,
    holds_all,
    replaced_folder,
    write_parquet,
)
from pipeline.exports.rows import Exported, LeftOut, dataset_rows
from schemas.ledger.ledger import Ledger
from schemas.serialization import content_id

EMBEDDED = "hf-video-embedded"
_FORMAT = 1  # raise it when the same ledger must give different rows
_WHY_NOT = "the column plays one whole video per row, they have an image, several or a part of one"
_TOO_LARGE = "their files are larger than 2 GB, which one value of Parquet cannot hold"
_MAX_BYTES = 2**31 - 2**20
# One video at a time in memory, and files of about a gigabyte where a clip has ten megabytes.
_EMBEDDED_ROWS_PER_GROUP, _EMBEDDED_ROWS_PER_FILE = 1, 100


def export_hf_video(ledger: Ledger, out: Path, media_root: Path) -> Exported:
    """Write `OUT/hf-video/*.parquet`: the dataset's columns, and `video` with absolute paths.

    Rows that are not about one whole video are left out and counted.
    """
    folder = out / "hf-video"
    left_out = LeftOut()
    root = media_root.absolute()
    rows = (
        {**row, "video": {"bytes": None, "path": str(root / row["path"])}}
        for row in _playable(ledger, left_out)
    )
    with replaced_folder(folder, PARQUET_NAMES) as fresh:
        num_rows = write_parquet(rows, fresh, VIDEO_SCHEMA)
    return Exported(folder, num_rows, left_out.number, left_out.why, root)


def export_hf_video_embedded(ledger: Ledger, out: Path, media_root: Path) -> Exported:
    """Write `OUT/hf-video-embedded/*.parquet`: the same with the files' bytes, read from
    `media_root`.

    A file that cannot be read, or is larger than 2 GB, costs its rows, which are counted. Files
    written from the same accepted rows are kept: nothing is embedded twice.
    """
    folder = out / EMBEDDED
    left_out = LeftOut()
    playable = sum(1 for _ in _playable(ledger, left_out))
    _, state = accepted_state(ledger)
    notes = {"p2r.state": content_id("state", ["video", _FORMAT, *state])}
    if holds_all(folder, notes, playable):
        return Exported(folder, playable, left_out.number, left_out.why)
    left_out = LeftOut()
    with replaced_folder(folder, PARQUET_NAMES) as fresh:
        num_rows = write_parquet(
            _embedded(ledger, media_root, left_out),
            fresh,
            VIDEO_SCHEMA,
            notes=notes,
            rows_per_file=_EMBEDDED_ROWS_PER_FILE,
            rows_per_group=_EMBEDDED_ROWS_PER_GROUP,
            identity=lambda row: {**row, "video": row["video"]["path"]},
        )
    return Exported(folder, num_rows, left_out.number, left_out.why)


def _playable(ledger: Ledger, left_out: LeftOut) -> Iterator[Mapping[str, Any]]:
    for row in dataset_rows(ledger):
        if row["kinds"] == ["video"] and "spans" not in row:
            yield row
        else:
            left_out.add(_WHY_NOT)


def _embedded(ledger: Ledger, media_root: Path, left_out: LeftOut) -> Iterator[Mapping[str, Any]]:
    for row in _playable(ledger, left_out):
        path = media_root / row["path"]
        try:
            is_too_large = path.stat().st_size > _MAX_BYTES
            content = b"" if is_too_large else path.read_bytes()
        except OSError as error:
            left_out.add(f"their files could not be read (as {row['path']}: {error.strerror})")
            continue
        if is_too_large:
            left_out.add(_TOO_LARGE)
            continue
        yield {**row, "video": {"bytes": content, "path": PurePosixPath(row["path"]).name}}
