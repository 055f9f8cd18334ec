"""`judges.audit gate`: has a judge become worse since a baseline? For continuous integration.

    python -m judges.audit gate AUDIT --baseline judge.json --write-baseline    # once
    python -m judges.audit gate AUDIT --baseline judge.json                     # after each change

Both judges are held against the same people's labels on the same rows. An unscored verdict agrees
with nobody, so a prompt whose replies cannot be read any more does not pass.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from judges.audits.baseline import Baseline, baseline_of, read_baseline, write_baseline
from schemas.config import EXIT_OK, EXIT_ROWS_FAILED, Config, UsageError

if TYPE_CHECKING:
    from judges.audits.fall import Fall
    from judges.audits.views import JudgeView

EXIT_FELL = EXIT_ROWS_FAILED
SOURCE = "source"


class GateConfig(Config):
    """Options of `judges.audit gate`."""

    audit: Path
    """Folder of the audit, whose labels both are held against."""
    baseline: Path
    """JSON file with a judge's earlier verdicts, written by --write-baseline."""
    write_baseline: bool = False
    """Store the judge's verdicts of now as the baseline, in place of a comparison."""
    judge: str | None = None
    """The judge to look at, as given to `run`, or `source` for the one that made the data; needed
    where the audit has asked several."""
    variant: str | None = None
    """The judge's prompt, where the audit has asked with several."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """How often a judge that has not become worse may be stopped by chance."""
    resamples: int = Field(2000, ge=200)
    """How many times videos are resampled for the interval of the difference."""
    seed: int = 0
    """Seed of the resampling."""


def gate(config: GateConfig) -> int:
    """Compare, or store. Exit status 0: not worse, or stored; 1: agreement fell; 2: cannot tell."""
    from judges.audits.fall import fall_of, is_significant
    from judges.audits.store import AuditStore
    from judges.audits.views import audit_rows, judge_views
    from schemas.runs import start_run

    baseline = None if config.write_baseline else read_baseline(config.baseline)
    with AuditStore.open(config.audit, start_run(sys.argv, config)) as store:
        rows = audit_rows(store.items(), store.strata(), store.labels())
        view = chosen_view(judge_views(rows.items, store.verdicts()), config)
        store.ledger.end_run(EXIT_OK)
    if baseline is None:
        stored = baseline_of(view)
        write_baseline(config.baseline, stored)
        print(f"wrote {len(stored.verdicts)} verdicts of {view.name} to {config.baseline}")
        return EXIT_OK
    fall = fall_of(
        baseline, view, rows, alpha=config.alpha, resamples=config.resamples, seed=config.seed
    )
    has_fallen = is_significant(fall, config.alpha)
    _print(fall, baseline, view, config.alpha, has_fallen=has_fallen)
    return EXIT_FELL if has_fallen else EXIT_OK


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


def _print(
    fall: "Fall", baseline: Baseline, view: "JudgeView", alpha: float, *, has_fallen: bool
) -> None:
    from judges.audits.views import view_name
    from judges.audits.wording import is_too_few, p_value, percent, points

    seen = fall.comparison
    before = view_name(baseline.judge, baseline.variant) if baseline.variant else baseline.judge
    print(f"baseline  {before}  {', '.join(baseline.prompt_ids)}")
    print(f"now       {view.name}  {', '.join(sorted(view.prompt_ids))}")
    print(
        f"agreement with people on the same {seen.num_rows} rows of {seen.num_videos} videos: "
        f"{percent(fall.before)}, now {percent(fall.now)}"
    )
    print(
        f"only the baseline right {seen.only_first_right}, only now right "
        f"{seen.only_second_right}; unscored {fall.unscored_before}, now {fall.unscored_now}"
    )
    print(
        f"fall {points(seen.difference)}, {100 * (1 - 2 * alpha):g} % interval; one-sided McNemar "
        f"p {p_value(fall.one_sided_p)}"
    )
    if has_fallen:
        print("FAILED: agreement with people has fallen, by more than chance explains")
        return
    print("passed: no fall that chance would not explain")
    if is_too_few(seen.num_rows, seen.num_videos):
        print("but so few rows show a large fall only: label more")
    elif seen.difference.high > 0:
        print(f"a fall of up to {100 * seen.difference.high:.1f} points could still be there")
