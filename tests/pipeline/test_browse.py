"""`pipeline.browse` as a command: what it refuses, and the way to its pages."""

import json
from pathlib import Path

import pytest
from helpers.browsed_build import make_build

from cli.config import UsageError
from pipeline.browse import main
from schemas.ledger.file import claim, release


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("browsed"))


def test_a_folder_without_a_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no build: expected the output folder of pipeline"):
        main([str(tmp_path)])


def test_a_running_build_is_refused_in_a_sentence(out: Path) -> None:
    claimed = claim(out / "cot.duckdb")
    try:
        with pytest.raises(UsageError, match="is already open in this process"):
            main([str(out)])
    finally:
        release(claimed)
    assert not (out / "browse").exists()


def test_a_media_root_that_is_none_is_refused_and_one_that_moved_is_given(
    out: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is not a folder; give the one under which"):
        main([str(out), "--media-root", str(tmp_path / "nowhere")])
    config = out / "config.json"
    saved = config.read_text()
    root = json.loads(saved)["media_root"]
    config.write_text(json.dumps({**json.loads(saved), "media_root": "/nowhere/clips"}))
    try:
        assert main([str(out), "--limit", "1"]) == 0
        page = (out / "browse" / "rows-00001.html").read_text()
        assert "no folder /nowhere/clips; give --media-root" in page
        assert main([str(out), "--limit", "1", "--media-root", root]) == 0
        assert "data:image/jpeg" in (out / "browse" / "rows-00001.html").read_text()
    finally:
        config.write_text(saved)


def test_frames_that_cannot_be_kept_or_read_are_one_sentence(out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"cannot be kept in .*file/cache .*give --frame-cache"):
        main([str(out), "--frame-cache", str(tmp_path / "file" / "cache")])
    config = out / "config.json"
    saved = config.read_text()
    config.write_text(json.dumps({**json.loads(saved), "frames": "some of them"}))
    try:
        with pytest.raises(UsageError, match=r"the frames of .* cannot be read: "):
            main([str(out)])
    finally:
        config.write_text(saved)


def test_without_pictures_no_media_are_opened_nor_linked(out: Path) -> None:
    assert main([str(out), "--no-pictures"]) == 0
    assert "<video" not in (out / "browse" / "rows-00001.html").read_text()


def test_the_folders_index_leads_to_the_pages(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(out), "--no-pictures"]) == 0
    assert f"32 rows on 1 page: open {out / 'browse' / 'index.html'}" in capsys.readouterr().out
    assert 'href="browse/index.html"' in (out / "index.html").read_text()
