"""The builder's three sufficiency filters against the known truth of a rendered world.

    python benchmarks/sufficiency_filters.py [--judge oracle:8] [--blind-filter oracle:9,blind=0.3]

One scripted teacher writes the same observations for three builds, `--sufficiency judge`, `answer`
and `both`; part of them leave out what decides. What the world shows is known, so it is known which
ones suffice. Printed for each filter: the share of what it keeps that suffices (precision), the
share of what suffices that it keeps (recall), the same for the questions that the reader does not
answer without the video, and what it asked and paid. Judge and reader may be any backend.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from judges.audits.report.number_format import percent
from judges.statistics.cluster_bootstrap import Estimate, sample_design, share
from pipeline.build_cot import main as build
from sandbox.clips import main as render
from sandbox.truth_labels import true_labels
from schemas.ledger.accepted_samples import QUESTION_COLUMNS, stored_question
from schemas.ledger.file import reading

FILTERS = ("judge", "answer", "both")
TEACHER = "oracle:7,insufficient=0.3"
JUDGE = "oracle:8,false_yes=0.2,false_no=0.05"
READER = "oracle:9,blind=0.3,false_yes=0.1,false_no=0.05"
_FILTER_STEPS = ("filter", "filter-answer", "blind")
_JUDGED = f"""
SELECT {QUESTION_COLUMNS}, attempts.observation, last_verdicts.verdict, blind_marks.answerable_blind
FROM last_verdicts JOIN attempts USING (question_id, draw) JOIN questions USING (question_id)
LEFT JOIN blind_marks USING (question_id)
WHERE last_verdicts.verdict <> '' ORDER BY question_id, draw
"""
_CALLS = """
SELECT count(*), CASE WHEN count(cost_usd) = count(*) THEN sum(cost_usd) END FROM calls
WHERE status = 'ok' AND step IN (SELECT unnest(?))
"""


@dataclass(frozen=True)
class FilterMeasure:
    """One filter: `judged` observations, those it kept and those that suffice, and its shares.

    `recall_where_needed` is the recall on questions that the reader does not answer blind. A
    verdict that could not be read keeps nothing. `usd` is None where a price is not known.
    """

    judged: int
    sufficient: int
    kept: int
    precision: Estimate
    recall: Estimate
    recall_where_needed: Estimate
    calls_per_observation: float
    usd_per_1000: float | None


def measured(out: Path, world: Path) -> FilterMeasure:
    """What a finished build kept, against the truth; intervals by clip."""
    with reading(out / "cot.duckdb") as ledger:
        rows = ledger.execute(_JUDGED).fetchall()
        ((calls, dollars),) = ledger.execute(_CALLS, [list(_FILTER_STEPS)]).fetchall()
    questions = [stored_question(tuple(row[:-3])) for row in rows]
    observations, verdicts, blind = zip(*(row[-3:] for row in rows), strict=True)
    labels = asyncio.run(true_labels(list(zip(questions, observations, strict=True)), world))
    suffices = np.array([label == "sufficient" for label in labels])
    is_kept = np.array([verdict == "yes" for verdict in verdicts])
    is_needed = np.array([mark is not True for mark in blind])
    design = sample_design([question.media[0].path for question in questions])

    def of(hits: Any, among: Any) -> Estimate:
        return share(np.where(among, hits.astype(np.float64), np.nan), design)

    return FilterMeasure(
        judged=len(rows),
        sufficient=int(suffices.sum()),
        kept=int(is_kept.sum()),
        precision=of(suffices, is_kept),
        recall=of(is_kept, suffices),
        recall_where_needed=of(is_kept, suffices & is_needed),
        calls_per_observation=calls / len(rows),
        usd_per_1000=None if dollars is None else 1000 * dollars / len(rows),
    )


def compare(
    folder: Path, *, questions: int, judge: str, reader: str, more: Sequence[str] = ()
) -> dict[str, FilterMeasure]:
    """Render a world in `folder`, build it three times, and measure each filter."""
    world = folder / "world"
    if not (world / "world.json").exists():
        size = ["--clips", str(questions // 8), "--stills", str(questions // 8)]
        render(["--output-dir", str(world), *size, "--num-questions", str(questions), "--seed=3"])
    found = {}
    for name in FILTERS:
        options = ["--questions", str(world / "questions.json"), "--media-root", str(world)]
        options += ["--generator", TEACHER, "--blind-filter", reader, "--sufficiency", name]
        options += ["--frames", "uniform:2", "--frame-cache", str(folder / "frames"), *more]
        if name != "answer":
            options += ["--judge", judge]
        if status := build([*options, "--output-dir", str(folder / name)]):
            raise SystemExit(f"the build with --sufficiency {name} ended with status {status}")
        found[name] = measured(folder / name, world)
    return found


def table(found: dict[str, FilterMeasure]) -> str:
    """The measures as a Markdown table."""
    head = "| filter | observations | kept | precision | recall | recall where the video is needed"
    lines = [f"{head} | calls each |", "|---|---:|---:|---|---|---|---:|"]
    for name, one in found.items():
        shares = (one.precision, one.recall, one.recall_where_needed)
        cells = " | ".join(percent(estimate) for estimate in shares)
        lines.append(
            f"| `{name}` | {one.judged:,} | {one.kept:,} | {cells} "
            f"| {one.calls_per_observation:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table, and the same as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--questions", type=int, default=800)
    parser.add_argument("--judge", default=JUDGE)
    parser.add_argument("--blind-filter", default=READER)
    parser.add_argument("--folder", type=Path, help="where to work; default a temporary folder")
    options, more = parser.parse_known_args()
    # What the commands print is no part of the result.
    with tempfile.TemporaryDirectory() as temporary, redirect_stdout(sys.stderr):
        found = compare(
            options.folder or Path(temporary),
            questions=options.questions,
            judge=options.judge,
            reader=options.blind_filter,
            more=more,
        )
    print(table(found))
    print(json.dumps({name: asdict(one) for name, one in found.items()}, indent=1))


if __name__ == "__main__":
    main()
