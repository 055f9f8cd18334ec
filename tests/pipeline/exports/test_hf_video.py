"""The dataset with a column that plays, by path and embedded, read back by `datasets`.

The decoder of `datasets`, torchcodec, is tried in `test_released_loaders.py`; here PyAV plays what
the column holds.
"""

import io
from pathlib import Path

import av
import datasets
import pyarrow.parquet as pq
import pytest
from helpers.built_ledger import add_attempt, question
from helpers.exports import (
    bytes_of,
    load,
    rows_of,
    trainer_ledger,
    trainer_questions,
    write_trainer_media,
)

from pipeline.exports.dataset import export_dataset
from pipeline.exports.formats import export_further
from pipeline.exports.hf_video import export_hf_video, export_hf_video_embedded
from schemas.questions import MediaRef

pytestmark = pytest.mark.heavy

SHOWN = question(7, media=(MediaRef(kind="video", path="clips/b b.mp4"),))
ASKED = [*trainer_questions(), SHOWN]  # 0, 5, 6 and 7 are about one whole video


def played(column: dict[str, object]) -> int:
    """How many frames the column's bytes or path give."""
    content = column["bytes"]
    source = io.BytesIO(content) if isinstance(content, bytes) else str(column["path"])
    with av.open(source) as container:
        return sum(1 for _ in container.decode(video=0))


def test_datasets_sees_a_video_beside_the_datasets_columns(tmp_path: Path) -> None:
    root = write_trainer_media(tmp_path / "media")
    with trainer_ledger(tmp_path, ASKED) as ledger:
        export_dataset(ledger, tmp_path)
        exported = export_hf_video(ledger, tmp_path, root)
    assert exported.media_below == root
    loaded = load(tmp_path / "hf-video", tmp_path / "cache")
    assert loaded.features["video"] == datasets.Video()
    rows = loaded.cast_column("video", datasets.Video(decode=False))
    assert [played(row["video"]) for row in rows] == [20, 20, 20, 8]
    assert rows[3]["video"] == {"bytes": None, "path": str(root / "clips/b b.mp4")}
    ours = {row["question_id"]: row for row in rows_of(tmp_path / "dataset")}
    for row in rows_of(tmp_path / "hf-video"):
        del row["video"]
        assert row == ours[row["question_id"]]


def test_embedded_videos_play_without_their_files(tmp_path: Path) -> None:
    root = write_trainer_media(tmp_path / "media")
    content = (root / "clips/b b.mp4").read_bytes()
    with trainer_ledger(tmp_path, ASKED) as ledger:
        exported = export_hf_video_embedded(ledger, tmp_path, root)
    root.rename(tmp_path / "elsewhere")
    assert exported.media_below is None
    loaded = load(tmp_path / "hf-video-embedded", tmp_path / "cache")
    assert loaded.features["video"] == datasets.Video()
    rows = loaded.cast_column("video", datasets.Video(decode=False))
    assert [played(row["video"]) for row in rows] == [20, 20, 20, 8]
    assert rows[3]["video"] == {"bytes": content, "path": "b b.mp4"}
    (file,) = (tmp_path / "hf-video-embedded").iterdir()
    assert pq.read_metadata(file).num_row_groups == 4, "one video is in memory at a time"


@pytest.mark.parametrize("name", ["hf-video", "hf-video-embedded"])
def test_what_is_not_one_whole_video_is_left_out_and_counted(tmp_path: Path, name: str) -> None:
    root = write_trainer_media(tmp_path / "media")
    with trainer_ledger(tmp_path, ASKED, media_root=str(root)) as ledger:
        (said,) = export_further(ledger, tmp_path, [name])
    assert "rows 4" in said
    assert said.endswith(
        "left out 4: the column plays one whole video per row, they have an image, several or a"
        " part of one"
    )


def test_a_file_that_is_gone_or_too_large_costs_its_rows(tmp_path: Path) -> None:
    root = write_trainer_media(tmp_path / "media")
    (root / "clips/b b.mp4").unlink()
    with (root / "clips/huge.mp4").open("wb") as huge:
        huge.truncate(2**31)
    huge_one = question(9, media=(MediaRef(kind="video", path="clips/huge.mp4"),))
    with trainer_ledger(tmp_path, [trainer_questions()[0], SHOWN, huge_one]) as ledger:
        exported = export_hf_video_embedded(ledger, tmp_path, root)
    assert (exported.num_rows, exported.num_left_out) == (1, 2)
    assert "(as clips/b b.mp4: No such file or directory)" in exported.why_left_out
    assert "larger than 2 GB" in exported.why_left_out


def test_nothing_is_embedded_twice_and_new_rows_are_embedded(tmp_path: Path) -> None:
    root = write_trainer_media(tmp_path / "media")
    folder = tmp_path / "hf-video-embedded"
    with trainer_ledger(tmp_path, [trainer_questions()[0]], media_root=str(root)) as ledger:
        export_further(ledger, tmp_path, ["hf-video-embedded"])
        (first,) = folder.iterdir()
        inode, before = first.stat().st_ino, bytes_of(folder)
        export_further(ledger, tmp_path, [])
        (again,) = folder.iterdir()
        assert again.stat().st_ino == inode
        ledger.add_question(SHOWN)
        add_attempt(ledger, SHOWN)
        (said,) = export_further(ledger, tmp_path, [])
    assert "rows 2 (an earlier run asked for this format)" in said
    assert bytes_of(folder) != before
    assert [row["video"]["path"] for row in rows_of(folder)] == ["a.mp4", "b b.mp4"]


@pytest.mark.parametrize("name", ["hf-video", "hf-video-embedded"])
def test_an_export_without_rows_still_has_the_column(tmp_path: Path, name: str) -> None:
    with trainer_ledger(tmp_path, []) as ledger:
        export_further(ledger, tmp_path, [name])
    (file,) = (tmp_path / name).iterdir()
    features = datasets.Features.from_arrow_schema(pq.read_schema(file))
    assert features["video"] == datasets.Video()
