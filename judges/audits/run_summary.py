"""What judges said how often: counts only, whether they are right is the report's matter."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import get_args

from rich.table import Table
from rich.text import Text

from judges.audits.records import REAL, AuditVerdict, Verdict


def summary_tables(verdicts: Sequence[AuditVerdict]) -> list[Table]:
    """One table per judge, one line in it per prompt and way of asking."""
    judges = sorted({verdict.judge for verdict in verdicts})
    return [_table(judge, [one for one in verdicts if one.judge == judge]) for judge in judges]


def _table(judge: str, verdicts: Sequence[AuditVerdict]) -> Table:
    groups: dict[tuple[str, str], list[AuditVerdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.variant, _way(verdict)].append(verdict)
    table = Table(
        title=Text(f"{judge}: verdicts in the sample, not weighted"),
        title_justify="left",
        title_style="",
    )
    for name in ("prompt", "asked"):
        table.add_column(name)
    for name in ("yes", "no", "unscored", "$ / 1,000", "s / 1,000"):
        table.add_column(name, justify="right")
    for (variant, way), group in sorted(groups.items()):
        counts = Counter(verdict.verdict for verdict in group)
        table.add_row(
            variant,
            way,
            *(f"{counts[word]:,}" for word in get_args(Verdict)),
            _per_thousand([verdict.cost_usd for verdict in group], 2),
            _per_thousand([verdict.seconds for verdict in group], 0),
        )
    return table


def _way(verdict: AuditVerdict) -> str:
    if verdict.probe != REAL:
        return f"probe {verdict.probe}"
    if verdict.permutation:
        return "order of options" if verdict.permutation % 2 else "letters of options"
    return "as published"


def _per_thousand(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "not known"
    return f"{1000 * sum(known) / len(known):,.{digits}f}"
