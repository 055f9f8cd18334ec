"""`judges.audit report`: judges compared with the labels, and what their errors do to the data.

Prints the report and writes AUDIT/report.json, AUDIT/pictures/*.png and AUDIT/report.html.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import field_validator

from cli.config import EXIT_OK, UsageError, require_packages, say
from cli.index_page import write_index_page
from cli.option_groups import (
    AuditOptions,
    FrameOptions,
    MediaRootOptions,
    OutputOptions,
    PageRoomOptions,
    ResamplingOptions,
)
from cli.output_folder import check_folder, claim_folder
from media.sampling import FrameSpec

if TYPE_CHECKING:
    from judges.audits.report.disagreements import Card
    from judges.audits.report.number_format import Section
    from judges.audits.report.page import Media
    from judges.audits.report.results import AuditResults
    from judges.audits.report.stated_answer_results import AnswerResults
    from judges.audits.store import AuditStore
    from schemas.runs import RunInfo

    Results = AuditResults | AnswerResults

NO_FRAMES = "none"
_BUILD_PAGES = "browse/index.html"
_FILE_WIDTH = 150  # tables in a file or a pipe: an interval beside each number takes room


class ReportConfig(
    AuditOptions,
    OutputOptions[Path | None],
    ResamplingOptions,
    MediaRootOptions[Path | None],
    FrameOptions,
    PageRoomOptions,
    defaults={
        "output_dir": None,
        "media_root": None,
        "frames": "uniform:8",
        "max_pixels": 64 * 28 * 28,
        "video_decoder": "decord-then-pyav",
    },
    notes={
        "output_dir": "By default the audit's own.",
        "frames": "On the page; `none` leaves them out.",
        "media_root": "By default the one that the build used.",
    },
    group="output",
    example="out/audit --media-root clips",
):
    """Options of `judges.audit report`."""

    widths: tuple[float, ...] = (0.1,)
    """Also compute how many labels give an interval of this width; 0.1 is 10 percentage points
    from end to end."""

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
    from judges.audits.report.page import write_report_page
    from judges.audits.store import AuditStore
    from schemas.runs import start_run

    output = config.output_dir or config.audit
    is_elsewhere = output.resolve() != config.audit.resolve()
    if is_elsewhere:
        check_folder(output, "judges.audit report")
    require_packages("scipy")
    run = start_run(sys.argv, config)
    with AuditStore.open(config.audit, run) as store:
        if is_elsewhere:
            claim_folder(output, "judges.audit report")
        results, sections, pictures, cards = _found(config, store)
        _write_json(output / "report.json", results, cards)
        _write_pictures(output / "pictures", pictures)
        write_report_page(
            output / "report.html",
            kind=store.kind,
            heading=f"Judge audit: {config.audit.resolve().name}",
            made=_made(run),
            sections=sections,
            pictures=pictures,
            cards=cards,
            items=store.items(),
            media=_media(config, store, cards),
            build_pages=_build_pages(store, output),
        )
        store.ledger.end_run(EXIT_OK)
    is_own = output.resolve() == config.audit.resolve()
    write_index_page(output, None if is_own else {"audit": config.audit})
    _print(sections)
    say(f"wrote {output / 'report.html'}, report.json and pictures/ ({len(pictures)})", sys.stdout)
    return EXIT_OK


def _found(
    config: ReportConfig, store: "AuditStore"
) -> tuple["Results", "Sequence[Section]", dict[str, bytes], "Sequence[Card]"]:
    """What labels and verdicts say, as sections, pictures and rows to look at."""
    from judges.audits.arrays import audit_rows, judge_views, without_echoes
    from judges.audits.report.results import ReportSettings, collect

    labels, verdicts, strata = store.labels(), store.verdicts(), store.strata()
    rows = audit_rows(store.items(), strata, labels)
    settings = ReportSettings(config.resamples, config.seed, config.widths)
    given = (rows, strata, labels, verdicts, store.source, settings)
    if store.kind.yes_is_an_answer:
        from judges.audits.report.stated_answer_results import collect_answers
        from judges.audits.report.stated_answer_sections import answer_cards, answer_sections

        answers = collect_answers(*given)
        return answers, answer_sections(answers), {}, answer_cards(rows, verdicts)
    from judges.audits.report.disagreements import cards_of
    from judges.audits.report.figures import pictures_of
    from judges.audits.report.sections import sections_of

    results = collect(*given)
    cards = cards_of(rows, without_echoes(judge_views(rows.items, verdicts)), verdicts)
    return results, sections_of(results), pictures_of(results), cards


def _build_pages(store: "AuditStore", output: Path) -> str:
    """The page on which `pipeline.browse` shows what was audited, as seen from the report; empty
    where there is none."""
    pages = [Path(ledger).parent / _BUILD_PAGES for ledger in store.source.get("ledgers", ())]
    if len(pages) != 1 or not pages[0].is_file():
        return ""
    return quote(os.path.relpath(pages[0], output.resolve()).replace(os.sep, "/"))


def _made(run: "RunInfo") -> str:
    code = f", commit {run.commit[:12]}{' and changes' if run.dirty else ''}" if run.commit else ""
    return f"Made {run.started_at[:16].replace('T', ' ')} UTC by judges.audit report{code}."


def _media(config: ReportConfig, store: "AuditStore", cards: "Sequence[Card]") -> "Media":
    from judges.audits.report.page import load_media_now, no_media
    from media.cache import default_cache_dir
    from media.store import FrameStore

    media_root = config.media_root or store.media_root
    if config.media_root is not None and not config.media_root.is_dir():
        raise UsageError(
            f"--media-root {config.media_root} is not a folder; give the one under which the "
            "videos' paths lie"
        )
    if not store.kind.shows_media:
        return no_media(cards)
    if config.frames == NO_FRAMES or not cards:
        return no_media(cards, "frames were not asked for (--frames none)")
    if media_root is None or not media_root.is_dir():
        problem = "the media root is not known" if media_root is None else f"no folder {media_root}"
        return no_media(cards, f"{problem}; give --media-root")
    with FrameStore(
        media_root,
        spec=FrameSpec.parse(config.frames, config.max_pixels),
        cache_dir=config.frame_cache or default_cache_dir(),
        reader=config.video_decoder,
        timeout_seconds=config.decode_timeout_seconds,
        follow_symlinks=config.follow_symlinks,
    ) as frames:
        return load_media_now(frames, cards, config.max_page_megabytes * 1_000_000)


def _write_json(path: Path, results: "Results", cards: "Sequence[Card]") -> None:
    from schemas.serialization import redact

    content: dict[str, Any] = results.as_json()
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

    from cli.console import output_console, plain_table

    console = output_console(file_width=_FILE_WIDTH)
    for section in sections:
        console.print()
        console.print(section.title, style="bold")
        for sentence in section.sentences:
            console.print(sentence)
        for one in section.tables:
            rows = one.rows[: one.screen_rows]
            if rows:
                console.print(
                    plain_table(one.columns, rows, num_texts=one.num_texts, box=box.SIMPLE_HEAD)
                )
            if len(one.rows) > one.screen_rows:
                num_more = len(one.rows) - one.screen_rows
                more = f"... {num_more} more" if rows else f"{num_more} {one.what}"
                console.print(f"{more} on the page")
