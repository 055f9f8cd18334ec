"""An evaluation as text: percentages with two decimals, the conditions beside them."""

import io
import math
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from judges.comparison import Comparison
from train.evaluation.summary import Mismatch, Score, Slice, Summary

_WIDTH = 150


def summary_text(summary: Summary, conditions: str) -> str:
    """The table of scores, then adherence, mismatch and errors."""
    lines = [conditions, _rendered(_scores(summary))]
    if summary.template_adherence is not None:
        lines.append(f"template followed: {_percent(summary.template_adherence)}")
    if summary.mismatch is not None:
        lines.append(_mismatch(summary.mismatch))
    if summary.errors:
        lines.append(f"{summary.errors} rows have no answer because of an error; they score 0")
    return "\n".join(lines)


def comparison_text(found: Mapping[str, tuple[Comparison, int]], first: str, second: str) -> str:
    """Two runs, question by question."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{first} against {second}")
    names = (
        "reading", "both answered", "both right", "only first", "only second", "neither",
        "difference (95 %)", "McNemar p", "p by video",
    )  # fmt: skip
    for name in names:
        table.add_column(name, justify="left" if name == "reading" else "right")
    for reading, (seen, _) in found.items():
        table.add_row(
            reading,
            *(f"{count:,}" for count in (
                seen.num_rows, seen.both_right, seen.only_first_right, seen.only_second_right,
                seen.neither_right,
            )),
            f"{100 * seen.difference.value:+.2f} points ({100 * seen.difference.low:+.2f} to "
            f"{100 * seen.difference.high:+.2f})",
            f"{seen.exact_p:.3f}",
            f"{seen.clustered_p:.3f}",
        )  # fmt: skip
    unmatched = max((left_over for _, left_over in found.values()), default=0)
    note = f"{unmatched} rows are in one file only and play no part" if unmatched else ""
    return "\n".join(filter(None, (_rendered(table), note)))


def _scores(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    extra = [
        (name, title)
        for name, title in (
            ("mean_relative_accuracy", "MRA"),
            ("mean_iou", "mIoU"),
            ("iou_at_30", "IoU@0.3"),
            ("iou_at_50", "IoU@0.5"),
        )
        if any(getattr(one, name) is not None for one in (summary.overall, *summary.slices))
    ]
    for name in ("part", "n", "strict", "unparsed", "tolerant", "95 % by video", "unparsed"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for _, title in extra:
        table.add_column(title, justify="right")
    for one in (summary.overall, *summary.slices):
        table.add_row(*_row(one), *(_percent(getattr(one, name)) for name, _ in extra))
    return table


def _row(one: Slice) -> tuple[str, ...]:
    strict, tolerant = one.strict, one.tolerant
    return (
        f"{one.kind}: {one.value}" if one.value else one.kind,
        f"{tolerant.n:,}",
        _score(strict),
        _percent(strict.unparsed / strict.n),
        _score(tolerant),
        "–" if math.isnan(tolerant.low) else f"{100 * tolerant.low:.2f}–{100 * tolerant.high:.2f}",
        _percent(tolerant.unparsed / tolerant.n),
    )


def _score(score: Score) -> str:
    return f"{_percent(score.score)} ({score.correct:,})"


def _mismatch(found: Mismatch) -> str:
    if found.share is None or found.share_if_counted is None:
        return "think-answer mismatch: no reasoning concludes an option"
    return (
        f"think-answer mismatch (rules): {_percent(found.share)} ({found.mismatches} of "
        f"{found.compared} reasonings that conclude an option; {found.no_conclusion} conclude none,"
        f" counted as mismatch {_percent(found.share_if_counted)})"
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _rendered(table: Table) -> str:
    console = Console(file=io.StringIO(), width=_WIDTH)
    console.print(table)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())
