"""A report as text: percentages as exact as the questions allow, the conditions beside them."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from cli.console import output_console
from train.evaluation.metrics import Metric, all_metrics
from train.evaluation.scoring import PARSINGS

Part = Mapping[str, Any]
_WIDTH = 200
_SHORT = {"problem type": "type", "data source": "source", "blind": "subset"}
_SHOWN_ROWS = 10
_MIN_CONSTANT = 20  # of fewer questions the best constant answer is chosen by their noise
_MAX_PARTS = 50  # of a kind of slice: a source per row says nothing about sources


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
    """The lines below the table: lengths, mismatch, rows that were left out."""
    return [
        *_lengths(report),
        *_mismatch(report["mismatch"]),
        *_blind(report.get("blind")),
        *_extraction(report.get("answer_extraction")),
        *_left_out(report),
        *_differences(report["differs_from_published"]),
    ]


def comparison_text(found: Mapping[str, Any], first: str, second: str) -> str:
    """Two runs compared question by question."""
    columns, rows = comparison_table(found)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{first} (first) against {second}")
    for name in columns:
        table.add_column(name, justify="left" if name == "parsing" else "right")
    for row in rows:
        table.add_row(*row)
    lines = [_rendered(table)]
    if alone := found["only_in_first"] + found["only_in_second"]:
        lines.append(f"{alone} questions are in one run only and play no part")
    if repeated := found["repeated_questions_left_out"]:
        lines.append(f"{repeated} repeated questions play no part")
    return "\n".join(lines)


def comparison_table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns, and one row per way of parsing."""
    columns = [
        "parsing", "matched", "both right", "only first", "only second", "neither",
        "difference (95 % by video)", "McNemar p", "p by video",
    ]  # fmt: skip
    counts = ("both_right", "only_first_right", "only_second_right", "neither_right")
    rows = []
    for parsing in PARSINGS:
        seen = found[parsing]
        rows.append(
            [
                parsing,
                f"{found['matched']:,}",
                *(f"{seen[name]:,}" for name in counts),
                _points(seen["difference"], found["matched"]),
                f"{seen['mcnemar_exact_p']:.3g}",
                f"{seen['mcnemar_clustered_p']:.3g}",
            ]
        )
    return columns, rows


def parts_of(report: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    """The whole and its slices, each with its name in the table."""
    yield "overall", report["overall"]
    for kind, named in report["slices"].items():
        if len(named) <= _MAX_PARTS:
            for name, part in named.items():
                yield f"{_SHORT.get(kind, kind)}: {name}", part


def score_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns, and one row per part: scores, unparsed shares, baseline, every labelled metric."""
    parts = list(parts_of(report))
    extra = [
        row for row in all_metrics() if row.label and any(_summary(row, one) for _, one in parts)
    ]
    columns = [
        "part", "n", "strict", "unparsed", "tolerant", "95 % by video", "unparsed",
        "best constant", f"follows {report['template']}",
        *(row.label for row in extra),
    ]  # fmt: skip
    rows = []
    for name, one in parts:
        constant, followed = one["best_constant"], one.get("template_adherence")
        rows.append(
            [
                name,
                f"{one['n']:,}",
                _score(one["strict"]),
                percent(one["strict"]["unparsed_share"], one["n"]),
                _score(one["tolerant"]),
                _interval(one["tolerant"]),
                percent(one["tolerant"]["unparsed_share"], one["n"]),
                _score_of(constant if constant and constant["n"] >= _MIN_CONSTANT else None),
                _score_of(followed),
                *(_headline(row, one) for row in extra),
            ]
        )
    return columns, rows


def percent(share: float | None, num_questions: int | None = None) -> str:
    """Per cent, as exact as that number of questions allows; a dash for None. One answer: one
    decimal."""
    return "–" if share is None else f"{100 * share:.{decimals(num_questions)}f} %"


def decimals(num_questions: int | None) -> int:
    """Of a percentage: none below 100 questions, of which each is more than a point; one below
    1,000, else two."""
    if num_questions is None:
        return 1
    return sum(num_questions >= limit for limit in (100, 1000))


def number(metric: Metric, value: float | None, num_questions: int | None = None) -> str:
    """A metric's value as the tables show it; a dash for None."""
    if metric.is_share or value is None:
        return percent(value, num_questions)
    return f"{value:.4g}"


def _headline(metric: Metric, part: Part) -> str:
    summary = _summary(metric, part)
    if summary is None:
        return number(metric, None)
    return number(metric, summary[metric.headline], summary.get("n"))


def _summary(metric: Metric, part: Part) -> Part | None:
    """What `train.evaluation.metrics.summarize` made of a metric; None where nothing applied."""
    found: Any = part
    for name in metric.report_path:
        found = (found or {}).get(name)
    return found  # type: ignore[no-any-return]  # JSON, by its shape in `summarize`


def _score(accuracy: Part) -> str:
    return f"{_score_of(accuracy)} ({accuracy['correct']:,})"


def _score_of(part: Part | None) -> str:
    return percent(part["score"], part["n"]) if part else percent(None)


def _interval(found: Part) -> str:
    if found["low"] is None:
        return "–"
    digits = decimals(found["n"])
    return f"{100 * found['low']:.{digits}f}–{100 * found['high']:.{digits}f}"


def _points(difference: Part, num_questions: int) -> str:
    form = f"+.{decimals(num_questions)}f"
    points = f"{100 * difference['score']:{form}} points"
    if difference["low"] is None:
        return points
    return f"{points} ({100 * difference['low']:{form}} to {100 * difference['high']:{form}})"


def _lengths(report: Mapping[str, Any]) -> Iterator[str]:
    lengths = report["overall"]["lengths"]
    if lengths:
        means = ", ".join(
            f"{tag} {one['mean']:.1f} (median {one['median']:g})" for tag, one in lengths.items()
        )
        yield f"{report['lengths_in']} per segment, on average: {means}"
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
        f"think-answer mismatch ({found['extractor']}): {_score_of(found['mismatch'])} "
        f"({found['mismatches']} of {found['compared']} reasonings that conclude an option; "
        f"{found['without_conclusion']} conclude none, counted as mismatch "
        f"{_score_of(found['no_conclusion_counted_as_mismatch'])})"
    )
    yield f"  VideoP2R's table 6 for MMVU, read by Claude 3.7, in %: {published}"


def _blind(found: Part | None) -> Iterator[str]:
    if found is None:
        return
    yield (
        f"without the video {found['reader']} answers {found['answerable_blind']} of "
        f"{found['questions']} questions ({found['correct_needed']} of {found['samples']} samples "
        "correct)"
    )
    if unscored := found["unscored"]:
        yield f"  {unscored} are in neither subset: too few of its replies could be used"


def _extraction(found: Part | None) -> Iterator[str]:
    if found is None:
        return
    yield (
        f"{found['unread_by_rules']} replies hold no answer that rules read; by "
        f"{found['extractor']} {found['extracted']} of them state one, {found['state_no_answer']} "
        f"state none, {found['unscored']} could not be read"
    )


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
        yield f"{len(rows)} rows have another score (tolerant) than the file gives them:"
    for one in rows[:_SHOWN_ROWS]:
        yield (
            f"  question {one['problem_id']}: published {one['published']:g}, ours "
            f"{one['tolerant']:g}; gold {one['gold']}, read {one['read']!r}"
        )
    yield from _and_more(len(rows))


def _and_more(count: int) -> Iterator[str]:
    if count > _SHOWN_ROWS:
        yield f"  ... and {count - _SHOWN_ROWS} more, all of them in report.json with --out"


def _rendered(table: Table) -> str:
    file = io.StringIO()
    output_console(file=file, file_width=_WIDTH).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())
