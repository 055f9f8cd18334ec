"""`judges.audit gate`: has a judge become worse since a baseline? For continuous integration.

    python -m judges.audit gate AUDIT --baseline judge.json --write-baseline    # once
    python -m judges.audit gate AUDIT --baseline judge.json                     # after each change

Both judges are compared with the same people's labels on the same rows. An unscored verdict agrees
with nobody, so a prompt whose replies cannot be read any more does not pass.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cli.config import EXIT_OK, EXIT_ROWS_FAILED, UsageError, say
from cli.option_groups import AuditOptions, JudgeOptions, ResamplingOptions
from schemas.serialization import write_text

if TYPE_CHECKING:
    from judges.audits.arrays import AuditRows, JudgeView
    from judges.statistics.cluster_bootstrap import Booleans, Estimate
    from judges.statistics.paired_comparison import Comparison

EXIT_WORSE = EXIT_ROWS_FAILED
SOURCE = "source"


class GateConfig(
    AuditOptions,
    JudgeOptions[str | None],
    ResamplingOptions,
    defaults={"judge": None},
    notes={
        "judge": "Here: the one to compare, as given to `run`, or `source` for the one that made "
        "the data; needed where the audit has several."
    },
    group="judge",
    groups={"baseline": "data", "write_baseline": "output"},
    example="out/audit --baseline judge.json",
):
    """Options of `judges.audit gate`."""

    baseline: Path
    """JSON file with a judge's earlier verdicts, written by --write-baseline."""
    write_baseline: bool = False
    """Store the judge's verdicts of now as the baseline, in place of a comparison."""
    variant: str | None = None
    """The judge's prompt, where the audit has verdicts by several."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """How often a judge that has not become worse may be stopped by chance."""


class Baseline(BaseModel):
    """A judge's verdicts by row, without media or labels: it can be kept in a repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["p2r-judge-baseline-1"] = "p2r-judge-baseline-1"
    judge: str
    variant: str
    prompt_ids: tuple[str, ...]
    verdicts: dict[str, Literal["yes", "no", "unscored"]] = Field(min_length=1)


def baseline_of(view: "JudgeView") -> Baseline:
    """The verdicts of a judge, to be stored."""
    return Baseline(
        judge=view.judge,
        variant=view.variant,
        prompt_ids=tuple(sorted(view.prompt_ids)),
        verdicts={one.item_id: one.verdict for one in view.verdicts if one is not None},
    )


def read_baseline(path: Path) -> Baseline:
    """A stored baseline. Raises UsageError."""
    try:
        return Baseline.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"--baseline {path} cannot be read ({error.strerror}); store one first with "
            "--write-baseline"
        ) from None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise UsageError(
            f"--baseline {path} is no baseline of judges.audit gate ({place}: {problem['msg']}); "
            "store one with --write-baseline"
        ) from None


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Store it, atomically."""
    text = json.dumps(baseline.model_dump(mode="json"), indent=1, sort_keys=True)
    write_text(path, f"{text}\n")


@dataclass(frozen=True)
class AgreementChange:
    """Agreement with people before and now; the baseline is first in `comparison`.

    A positive difference is a regression. Its interval has the level 1 - 2 alpha: what lies below
    its lower end has a chance of alpha.
    """

    comparison: "Comparison"
    before: "Estimate"
    now: "Estimate"
    unscored_before: int
    unscored_now: int
    one_sided_p: float

    def is_regression(self, alpha: float) -> bool:
        """Whether agreement fell by more than chance explains, weighted and unweighted.

        Both must say so: the weighted interval is of this population, the test of any rows like
        these. One video has no interval, and proves nothing.
        """
        return bool(self.comparison.difference.low > 0) and self.one_sided_p < alpha


def gate(config: GateConfig) -> int:
    """Compare, or store. Exit status 0: not worse, or stored; 1: agreement fell; 2: cannot tell."""
    from judges.audits.arrays import audit_rows, judge_views
    from judges.audits.store import AuditStore
    from schemas.runs import start_run

    baseline = None if config.write_baseline else read_baseline(config.baseline)
    with AuditStore.open(config.audit, start_run(sys.argv, config)) as store:
        if store.kind.yes_is_an_answer:
            raise UsageError(
                f"gate compares verdicts, and the audit in {config.audit} has answers (kind "
                f"{store.kind.name}); judges.audit report compares those"
            )
        rows = audit_rows(store.items(), store.strata(), store.labels())
        view = chosen_view(judge_views(rows.items, store.verdicts()), config)
        store.ledger.end_run(EXIT_OK)
    if baseline is None:
        stored = baseline_of(view)
        write_baseline(config.baseline, stored)
        words = f"wrote {len(stored.verdicts)} verdicts of {view.name} to {config.baseline}"
        say(words, sys.stdout)
        return EXIT_OK
    change = agreement_change(
        baseline, view, rows, alpha=config.alpha, resamples=config.resamples, seed=config.seed
    )
    _print(change, baseline, view, config.alpha)
    return EXIT_WORSE if change.is_regression(config.alpha) else EXIT_OK


def chosen_view(views: "Sequence[JudgeView]", config: GateConfig) -> "JudgeView":
    """The one judge and prompt that the options name. Raises UsageError where that is not one."""
    asked = [view for view in views if not view.is_source]
    if config.judge == SOURCE:
        found = [view for view in views if view.is_source]
    else:
        found = [
            view
            for view in asked
            if config.judge in (None, view.judge) and config.variant in (None, view.variant)
        ]
    if len(found) == 1:
        return found[0]
    named = [
        config.judge and f"--judge {config.judge}",
        config.variant and f"--variant {config.variant}",
    ]
    known = "; ".join(f"--judge {view.judge} --variant {view.variant}" for view in asked)
    raise UsageError(
        f"{' '.join(filter(None, named)) or 'no --judge'} fits {len(found)} of the judges that "
        f"{config.audit} has asked; give one of: {known or 'none yet, see judges.audit run'}; or "
        f"--judge {SOURCE} for the one that made the data"
    )


def agreement_change(
    baseline: Baseline,
    view: "JudgeView",
    rows: "AuditRows",
    *,
    alpha: float,
    resamples: int,
    seed: int,
) -> AgreementChange:
    """Compare on all rows of the baseline that people decided. Raises UsageError."""
    import numpy as np

    from judges.audits.arrays import correctness
    from judges.statistics.cluster_bootstrap import share
    from judges.statistics.paired_comparison import compare_judges, worse_now_p

    is_used = _comparable_rows(baseline, view, rows)
    words_before = [baseline.verdicts.get(item.item_id, "") for item in rows.items]
    words_now = ["" if one is None else one.verdict for one in view.verdicts]
    before, now = (correctness(one, rows.reference, is_used) for one in (words_before, words_now))
    # Correctness against a column of ones: unscored counts as wrong.
    comparison = compare_judges(
        before,
        now,
        np.where(is_used, 1.0, np.nan),
        rows.design,
        level=1 - 2 * alpha,
        resamples=resamples,
        seed=seed,
    )
    return AgreementChange(
        comparison=comparison,
        before=share(before, rows.design, resamples=resamples, seed=seed),
        now=share(now, rows.design, resamples=resamples, seed=seed),
        unscored_before=_count_unscored(words_before, is_used),
        unscored_now=_count_unscored(words_now, is_used),
        one_sided_p=worse_now_p(comparison),
    )


def _comparable_rows(baseline: Baseline, view: "JudgeView", rows: "AuditRows") -> "Booleans":
    """Rows of the baseline that people decided; the judge must have a verdict on all of them."""
    import numpy as np

    is_used: Booleans = ~np.isnan(rows.reference) & np.array(
        [item.item_id in baseline.verdicts for item in rows.items], dtype=np.bool_
    )
    if not is_used.any():
        raise UsageError(
            f"none of the {len(baseline.verdicts)} rows of the baseline has a label in this audit; "
            "give the audit that it was stored from, and label rows with judges.audit label"
        )
    num_missing = int((is_used & ~view.is_asked).sum())
    if num_missing:
        raise UsageError(
            f"{view.name} has not judged {num_missing} of the {int(is_used.sum())} labelled rows "
            "of the baseline; ask it about all of them with judges.audit run"
        )
    return is_used


def _count_unscored(words: Sequence[str], is_used: "Booleans") -> int:
    return sum(word == "unscored" and bool(used) for word, used in zip(words, is_used, strict=True))


def _print(change: AgreementChange, baseline: Baseline, view: "JudgeView", alpha: float) -> None:
    from judges.audits.arrays import view_name
    from judges.audits.report.number_format import is_too_few, p_value, percent, points

    seen = change.comparison
    before = view_name(baseline.judge, baseline.variant) if baseline.variant else baseline.judge
    say(f"baseline  {before}  {', '.join(baseline.prompt_ids)}", sys.stdout)
    say(f"now       {view.name}  {', '.join(sorted(view.prompt_ids))}", sys.stdout)
    print(
        f"agreement with people on the same {seen.num_rows} rows of {seen.num_videos} videos: "
        f"{percent(change.before)}, now {percent(change.now)}"
    )
    print(
        f"only the baseline right {seen.only_first_right}, only now right "
        f"{seen.only_second_right}; unscored {change.unscored_before}, now {change.unscored_now}"
    )
    print(
        f"fall {points(seen.difference)}, {100 * (1 - 2 * alpha):g} % interval; one-sided McNemar "
        f"p {p_value(change.one_sided_p)}"
    )
    if change.is_regression(alpha):
        print("FAILED: agreement with people has fallen, by more than chance explains")
        return
    print("passed: no fall that chance would not explain")
    if is_too_few(seen.num_rows, seen.num_videos):
        print("but so few rows show a large fall only: label more")
    elif seen.difference.high > 0:
        print(f"a fall of up to {100 * seen.difference.high:.1f} points could still be there")
