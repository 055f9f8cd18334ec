"""`python -m pipeline.browse OUT`: the rows of a build as pages to look at, kept and rejected.

Writes `OUT/browse/index.html`, which finds rows by step, reason, source, type and text, and pages
of some hundred rows with frames, question, traces, checks, verdicts, replies and calls. They need
no server and no network. A running build holds its ledger: browse one that has ended or stopped.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cli.config import EXIT_OK, UsageError, parse_command, run_command, saved_options, say
from cli.option_groups import (
    FrameCacheOptions,
    LimitOptions,
    MediaRootOptions,
    PageRoomOptions,
)
from pipeline.options import BuildConfig, BuildFolderOptions

if TYPE_CHECKING:
    from pipeline.browsing.media import ClipFolder

PROG = "pipeline.browse"
DESCRIPTION = "The rows of a finished or stopped build as pages to look at, without a server."
FOLDER = "browse"


class BrowseConfig(
    BuildFolderOptions,
    LimitOptions,
    MediaRootOptions[Path | None],
    FrameCacheOptions,
    PageRoomOptions,
    defaults={"media_root": None, "max_page_megabytes": 20},
    notes={
        "media_root": "By default the one that the build used.",
        "frame_cache": "By default the one that the build used: its frames are there already.",
    },
    group="output",
    example="out/build --media-root clips",
):
    """Options of `python -m pipeline.browse`."""

    rows_per_page: int = Field(200, ge=1, le=2000)
    """Rows of the question file on one page."""
    pictures: bool = True
    """Show frames; without them no media file is opened and pages are small."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, and say where they are."""
    config = parse_command(
        BrowseConfig, argv, prog=PROG, description=DESCRIPTION, positional=("out",)
    )
    from cli.index_page import write_index_page
    from pipeline.browsing.pages import INDEX, NAMES, write_pages
    from pipeline.browsing.rows import BrowsedBuild
    from pipeline.exports.parquet_files import replaced_folder
    from schemas.ledger.file import LedgerError, reading

    built = _options_of(config.out)
    try:
        with reading(config.out / "cot.duckdb") as connection:
            build = BrowsedBuild(connection, config.limit)
            pages = config.out / FOLDER
            with _clips(config, built, pages) as clips, replaced_folder(pages, NAMES) as fresh:
                num_pages = write_pages(
                    build,
                    clips,
                    fresh,
                    heading=f"Rows of {config.out.resolve().name}",
                    rows_per_page=config.rows_per_page,
                    max_page_bytes=config.max_page_megabytes * 1e6,
                )
    except LedgerError as error:
        raise UsageError(str(error)) from None
    write_index_page(config.out)
    words = f"{num_pages:,} page{'s' if num_pages != 1 else ''}"
    say(f"{build.num_rows:,} rows on {words}: open {pages / INDEX}", sys.stdout)
    return EXIT_OK


def _options_of(out: Path) -> dict[str, Any]:
    """The options of the build in a folder, those it did not name with their defaults."""
    saved = out / "config.json"
    if not saved.is_file() or not (out / "cot.duckdb").is_file():
        raise UsageError(
            f"{out} holds no build: expected the output folder of pipeline.build_cot (its "
            "--output-dir), with config.json and cot.duckdb"
        )
    fields = BuildConfig.model_fields
    named = saved_options(saved, BuildConfig)
    return {
        name: named.get(name, field.get_default(call_default_factory=True))
        for name, field in fields.items()
    }


@contextmanager
def _clips(config: BrowseConfig, built: dict[str, Any], pages: Path) -> "Iterator[ClipFolder]":
    """The build's media: its frames come from the cache where the build left them."""
    from media.cache import default_cache_dir
    from media.sampling import FrameSpec
    from media.store import FrameStore
    from pipeline.browsing.media import ClipFolder

    if config.media_root is not None and not config.media_root.is_dir():
        raise UsageError(
            f"--media-root {config.media_root} is not a folder; give the one under which the "
            "build's paths lie"
        )
    root = config.media_root or Path(str(built["media_root"]))
    follows = bool(built["follow_symlinks"])
    if not config.pictures or not root.is_dir():
        why = "--no-pictures" if not config.pictures else f"no folder {root}; give --media-root"
        why_not = f"frames were left out ({why})"
        yield ClipFolder(None, None, pages, follow_symlinks=follows, why_not=why_not)
        return
    cache = config.frame_cache or built["frame_cache"] or default_cache_dir()
    try:
        store = FrameStore(
            root,
            spec=FrameSpec.parse(built["frames"], built["max_pixels"]),
            cache_dir=Path(cache),
            reader=built["video_decoder"],
            timeout_seconds=built["decode_timeout_seconds"],
            workers=built["decode_workers"],
            follow_symlinks=follows,
            cache_max_bytes=int(built["frame_cache_gb"] * 1e9),
        )
    except ValueError as error:
        raise UsageError(f"the frames of {config.out} cannot be read: {error}") from None
    except OSError as error:
        raise UsageError(
            f"decoded frames cannot be kept in {cache} ({error.strerror}); give --frame-cache a "
            "folder that can be written"
        ) from None
    with store as frames:
        yield ClipFolder(frames, root, pages, follow_symlinks=follows)


if __name__ == "__main__":
    run_command(PROG, main)
