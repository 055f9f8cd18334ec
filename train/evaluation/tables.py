"""A report as text: percentages with two decimals, the conditions beside them."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Part = Mapping[str, Any]
_WIDTH = 200
_SHORT = {"problem type": "type", "data source": "source"}
_SHOWN_ROWS = 10
_MIN_CONSTANT = 20  # of fewer questions the best constant answer is chosen by their noise
_MAX_PARTS = 50  # of a kind of slice: a source per row says nothing about sources
_EXTRA = {
    "MRA": ("mean_relative_accuracy", "tolerant"),
    "mIoU": ("grounding", "tolerant", "mean_iou"),
    "IoU@0.3": ("grounding", "tolerant", "iou_at_0.3"),
    "IoU@0.5": ("grounding", "tolerant", "iou_at_0.5"),
}


def report_text(report: Mapping[str, Any]) -> str:
    """Conditions, the table of scores, then lengths, mismatch, and what went wrong."""
    columns, rows = score_table(report)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(
            name, justify="left" if name == "part" else "right", no_wrap=name == "part"
        )
    for row in rows:
        table.add_row(*row)
    return "\n".join([report["conditions"]["sentence"], _rendered(table), *notes(report)])


def notes(report: Mapping[str, Any]) -> list[str]:
    """What is told below the table, line by line."""
    return [
        *_lengths(report),
        *_mismatch(report["mismatch"]),
        *_left_out(report),
        *_differences(report["differs_from_published"]),
    ]


def comparison_text(found: Mapping[str, Any], first: str, second: str) -> str:
    """Two runs, question by question."""
    columns, rows = comparison_table(found)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{first} (first) against {second}")
    for name in columns:
        table.add_column(name, justify="left" if name == "reading" else "right")
    for row in rows:
        table.add_row(*row)
    lines = [_rendered(table)]
    if alone := found["only_in_first"] + found["only_in_second"]:
        lines.append(f"{alone} questions are in one run only and play no part")
    if repeated := found["repeated_questions_left_out"]:
        lines.append(f"{repeated} repeated questions play no part")
    return "\n".join(lines)


def comparison_table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns, and one row per reading."""
    columns = [
        "reading", "matched", "both right", "only first", "only second", "neither",
        "difference (95 % by video)", "McNemar p", "p by video",
    ]  # fmt: skip
    counts = ("both_right", "only_first_right", "only_second_right", "neither_right")
    rows = []
    for reading in ("strict", "tolerant"):
        seen = found[reading]
        rows.append(
            [
                reading,
                f"{found['matched']:,}",
                *(f"{seen[name]:,}" for name in counts),
                _points(seen["difference"]),
                f"{seen['mcnemar_exact_p']:.3g}",
                f"{seen['mcnemar_clustered_p']:.3g}",
            ]
        )
    return columns, rows


def parts_of(report: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    """The whole and its slices, with the names they are printed by."""
    yield "overall", report["overall"]
    for kind, named in report["slices"].items():
        if len(named) <= _MAX_PARTS:
            for name, part in named.items():
                yield f"{_SHORT.get(kind, kind)}: {name}", part


def score_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns, and one row per part: both readings, their unparsed shares, what guessing gives."""
    parts = list(parts_of(report))
    extra = {name: path for name, path in _EXTRA.items() if any(_at(one, path) for _, one in parts)}
    columns = [
        "part", "n", "strict", "unparsed", "tolerant", "95 % by video", "unparsed",
        "best constant", f"follows {report['template']}", *extra,
    ]  # fmt: skip
    rows = []
    for name, one in parts:
        constant, followed = one["best_constant"], one.get("template_adherence")
        rows.append(
            [
                name,
                f"{one['n']:,}",
                _score(one["strict"]),
                percent(one["strict"]["unparsed_share"]),
                _score(one["tolerant"]),
                _ends(one["tolerant"]),
                percent(one["tolerant"]["unparsed_share"]),
                percent(constant["score"] if constant and constant["n"] >= _MIN_CONSTANT else None),
                percent(followed["score"] if followed else None),
                *(percent((_at(one, path) or {}).get("score")) for path in extra.values()),
            ]
        )
    return columns, rows


def percent(share: float | None) -> str:
    """Two decimals; a dash where there is nothing to tell."""
    return "–" if share is None else f"{100 * share:.2f} %"


def _at(part: Part, path: Sequence[str]) -> Part | None:
    found: Any = part
    for name in path:
        found = (found or {}).get(name)
    return found  # type: ignore[no-any-return]  # JSON, by its shape in `slices.worth`


def _score(reading: Part) -> str:
    return f"{percent(reading['score'])} ({reading['correct']:,})"


def _ends(found: Part) -> str:
    if found["low"] is None:
        return "–"
    return f"{100 * found['low']:.2f}–{100 * found['high']:.2f}"


def _points(difference: Part) -> str:
    points = f"{100 * difference['score']:+.2f} points"
    if difference["low"] is None:
        return points
    return f"{points} ({100 * difference['low']:+.2f} to {100 * difference['high']:+.2f})"


def _lengths(report: Mapping[str, Any]) -> Iterator[str]:
    lengths = report["overall"]["lengths"]
    if lengths:
        told = ", ".join(
            f"{tag} {one['mean']:.1f} (median {one['median']:g})" for tag, one in lengths.items()
        )
        yield f"{report['lengths_in']} per segment, on average: {told}"
    if report["truncated"]:
        yield f"{report['truncated']} replies were cut off at the token limit"


def _mismatch(found: Part | None) -> Iterator[str]:
    if found is None:
        return
    if "mismatch" not in found:
        yield f"think-answer mismatch ({found['extractor']}): no reasoning concludes an option"
        return
    published = ", ".join(
        f"{name} {share}" for name, share in found["published_mmvu_percent"].items()
    )
    yield (
        f"think-answer mismatch ({found['extractor']}): {percent(found['mismatch']['score'])} "
        f"({found['mismatches']} of {found['compared']} reasonings that conclude an option; "
        f"{found['without_conclusion']} conclude none, counted as mismatch "
        f"{percent(found['no_conclusion_counted_as_mismatch']['score'])})"
    )
    yield f"  VideoP2R's table 6 for MMVU, read by Claude 3.7, in %: {published}"


def _left_out(report: Mapping[str, Any]) -> Iterator[str]:
    errors = [f"{one['row']}: {one['error']}" for one in report["errors"]]
    yield from _listed(errors, "rows have no answer because of an error; they score 0")
    yield from _listed(report["unreadable"], "rows cannot be read and are left out")
    yield from _listed(report["without_usable_gold"], "rows have no usable gold answer: left out")
    if report["without_observation"]:
        yield (
            f"{report['without_observation']} replies hold no well-formed observation to read; "
            "they score 0"
        )


def _listed(rows: Sequence[str], what: str) -> Iterator[str]:
    if rows:
        yield f"{len(rows)} {what}:"
        yield from (f"  {row}" for row in rows[:_SHOWN_ROWS])
        yield from _and_more(len(rows))


def _differences(rows: Sequence[Part]) -> Iterator[str]:
    if rows:
        yield f"{len(rows)} rows score otherwise (tolerant) than the file itself says:"
    for told in rows[:_SHOWN_ROWS]:
        yield (
            f"  question {told['problem_id']}: published {told['published']:g}, ours "
            f"{told['tolerant']:g}; gold {told['gold']}, read {told['read']!r}"
        )
    yield from _and_more(len(rows))


def _and_more(count: int) -> Iterator[str]:
    if count > _SHOWN_ROWS:
        yield f"  ... and {count - _SHOWN_ROWS} more, all of them in report.json with --out"


def _rendered(table: Table) -> str:
    file = io.StringIO()
    Console(file=file, width=_WIDTH).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())
