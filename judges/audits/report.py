"""`judges.audit report`: what the labels say of the judges, and their errors of the data.

Prints the report and writes AUDIT/report.json, AUDIT/pictures/*.png and AUDIT/report.html.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from media.sampling import FrameSpec
from schemas.config import EXIT_OK, Config, UsageError

if TYPE_CHECKING:
    from judges.audits.disagreements import Card
    from judges.audits.facts import AuditFacts
    from judges.audits.report_page import Media
    from judges.audits.section_parts import Section
    from judges.audits.store import AuditStore
    from schemas.runs import RunInfo

NO_FRAMES = "none"
_FILE_WIDTH = 150  # tables in a file or a pipe: an interval beside each number takes room


class ReportConfig(Config):
    """Options of `judges.audit report`."""

    audit: Path
    """Folder of the audit, as `sample` wrote it."""
    output_dir: Path | None = None
    """Folder for report.json, report.html and pictures/; by default the audit's own."""
    widths: tuple[float, ...] = (0.1,)
    """Say how many labels give an interval of so many points: 0.1 is 10 points in all."""
    resamples: int = Field(2000, ge=200)
    """How many times videos are resampled for an interval."""
    seed: int = 0
    """Seed of the resampling: the same audit gives the same report."""
    frames: str = "uniform:8"
    """Frames of a video on the page: `uniform:N`, `fps:R,max=N`, or `none`."""
    max_pixels: int = Field(64 * 28 * 28, ge=28 * 28)
    """A frame with more pixels is scaled down to this many."""
    max_page_megabytes: int = Field(60, ge=0)
    """Room for frames on the page, in megabytes; further rows are there without."""
    media_root: Path | None = None
    """Folder under which the videos' paths lie; by default the one that the build used."""
    reader: Literal["decord", "pyav", "decord-then-pyav"] = "decord-then-pyav"
    """Who decodes videos for the page."""
    decode_timeout_seconds: float = Field(60, gt=0)
    """Time that one file may take to decode, in seconds."""
    frame_cache: Path | None = None
    """Folder for decoded frames; by default p2r/frames in the user's cache folder."""
    follow_symlinks: bool = False
    """Read files that symlinks outside the media root lead to."""

    @field_validator("frames")
    @classmethod
    def _frames_are_a_policy(cls, value: str) -> str:
        return value if value == NO_FRAMES else FrameSpec.parse(value).policy

    @field_validator("widths")
    @classmethod
    def _widths_are_shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        for width in value:
            if not 0 < width < 1:
                raise ValueError(f"a width is a share between 0 and 1, such as 0.1, not {width}")
        return value


def report(config: ReportConfig) -> int:
    """Compute, print and write the report."""
    from judges.audits.disagreements import cards_of
    from judges.audits.facts import ReportSettings, collect
    from judges.audits.figures import pictures_of
    from judges.audits.report_page import write_report_page
    from judges.audits.sections import sections_of
    from judges.audits.store import AuditStore
    from judges.audits.views import audit_rows, judge_views
    from schemas.runs import start_run

    run = start_run(sys.argv, config)
    with AuditStore.open(config.audit, run) as store:
        labels, verdicts, strata = store.labels(), store.verdicts(), store.strata()
        rows = audit_rows(store.items(), strata, labels)
        facts = collect(
            rows,
            strata,
            labels,
            verdicts,
            store.source,
            ReportSettings(config.resamples, config.seed, config.widths),
        )
        cards = cards_of(rows, judge_views(rows.items, verdicts), verdicts)
        sections, pictures = sections_of(facts), pictures_of(facts)
        output = config.output_dir or config.audit
        _write_json(output / "report.json", facts, cards)
        _write_pictures(output / "pictures", pictures)
        write_report_page(
            output / "report.html",
            kind=store.kind,
            heading=f"Judge audit: {config.audit.resolve().name}",
            made=_made(run),
            sections=sections,
            pictures=pictures,
            cards=cards,
            items=rows.items,
            media=_media(config, store, cards),
        )
        store.ledger.end_run(EXIT_OK)
    _print(sections)
    print(f"wrote {output / 'report.html'}, report.json and pictures/ ({len(pictures)})")
    return EXIT_OK


def _made(run: "RunInfo") -> str:
    code = f", commit {run.commit[:12]}{' and changes' if run.dirty else ''}" if run.commit else ""
    return f"Made {run.started_at[:16].replace('T', ' ')} UTC by judges.audit report{code}."


def _media(config: ReportConfig, store: "AuditStore", cards: "Sequence[Card]") -> "Media":
    from judges.audits.report_page import load_media_now, no_media
    from media.cache import default_cache_dir
    from media.store import FrameStore

    media_root = config.media_root or store.media_root
    if config.media_root is not None and not config.media_root.is_dir():
        raise UsageError(
            f"--media-root {config.media_root} is not a folder; give the one under which the "
            "videos' paths lie"
        )
    if not store.kind.shows_media:
        return {}
    if config.frames == NO_FRAMES or not cards:
        return no_media(cards, "frames were not asked for (--frames none)")
    if media_root is None or not media_root.is_dir():
        told = "nobody said where it lies" if media_root is None else f"{media_root} is not there"
        return no_media(cards, f"{told}; give --media-root")
    with FrameStore(
        media_root,
        spec=FrameSpec.parse(config.frames, config.max_pixels),
        cache_dir=config.frame_cache or default_cache_dir(),
        reader=config.reader,
        timeout_seconds=config.decode_timeout_seconds,
        follow_symlinks=config.follow_symlinks,
    ) as frames:
        return load_media_now(frames, cards, config.max_page_megabytes * 1_000_000)


def _write_json(path: Path, facts: "AuditFacts", cards: "Sequence[Card]") -> None:
    from schemas.redaction import redact

    content: dict[str, Any] = facts.as_json()
    content["disagreements"] = [
        {
            "item_id": card.item.item_id,
            "row": card.item.position,
            "video": card.item.video,
            "kinds": [{"judge": mark.judge, "kind": mark.kind} for mark in card.marks],
        }
        for card in cards
    ]
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    _write(path, f"{redact(text)}\n".encode())


def _write_pictures(folder: Path, pictures: dict[str, bytes]) -> None:
    for name, png in pictures.items():
        _write(folder / f"{name}.png", png)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _print(sections: "Sequence[Section]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from judges.audits.wording import visible

    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    for section in sections:
        console.print()
        console.print(Text(section.title, style="bold"))
        for sentence in section.sentences:
            console.print(Text(visible(sentence)))
        for one in section.tables:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for place, name in enumerate(one.columns):
                table.add_column(
                    Text(name),
                    justify="left" if place < one.num_texts else "right",
                    overflow="fold",
                )
            for row in one.rows[: one.screen_rows]:
                table.add_row(*(Text(visible(cell)) for cell in row))
            console.print(table)
            if len(one.rows) > one.screen_rows:
                console.print(Text(f"... {len(one.rows) - one.screen_rows} more on the page"))
