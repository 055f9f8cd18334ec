"""What a judge's errors do to the data that it filtered, and how many labels are needed."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from judges.audits.arrays import AuditRows, JudgeView, Resampling
from judges.audits.records import Stratum
from judges.statistics.agreement import Agreement
from judges.statistics.cluster_bootstrap import Booleans, Estimate, share
from judges.statistics.prevalence import Prevalence, corrected_prevalence
from judges.statistics.sample_size import JudgeGuess, design_effect, required_labels

PLANNED = ("agreement", "kept_but_insufficient", "rejected_but_sufficient")


@dataclass(frozen=True)
class Part:
    """The rows of the population that got one verdict.

    `wrong` is the share of them that was judged wrongly (for unscored rows: that are sufficient,
    and were lost), `num_wrong` the same in rows.
    """

    verdict: str
    population: int
    num_labelled: int
    num_videos: int
    wrong: Estimate
    num_wrong: Estimate


@dataclass(frozen=True)
class LabelsNeeded:
    """How many labels, split between kept and rejected rows as now, give an interval of `width`.

    None where more than a million would be needed or the judge's errors are not known. The
    `effect` of videos and weights multiplies what independent rows would need; that the population
    is finite lowers it: whoever has labelled all of it knows all.
    """

    statistic: str
    width: float
    now: float
    num_labels: int | None
    effect: float


@dataclass(frozen=True)
class Consequences:
    """The data as filtered by the audited judge. `prevalence` is None without labels."""

    kept: Part
    rejected: Part
    unscored: Part
    prevalence: Prevalence | None
    labels_needed: tuple[LabelsNeeded, ...]


def consequences_of(
    source: JudgeView,
    against_people: Agreement,
    rows: AuditRows,
    strata: Sequence[Stratum],
    widths: Sequence[float],
    given: Resampling,
) -> Consequences:
    """The judge's verdicts are known for the whole population, its errors from the labels."""
    population: Counter[str] = Counter()
    for stratum in strata:
        population[stratum.source_verdict] += stratum.population
    words = np.array([item.source_verdict for item in rows.items])
    num_scored = population["yes"] + population["no"]
    is_scored = words != "unscored"
    prevalence = None
    if num_scored and against_people.num_rows:
        prevalence = corrected_prevalence(
            source.said[is_scored],
            rows.reference[is_scored],
            rows.design.subset(is_scored),
            judged_yes=population["yes"] / num_scored,
            num_judged=num_scored,
            **given,
        )
    return Consequences(
        kept=_part("yes", 0.0, words == "yes", population, rows, given),
        rejected=_part("no", 1.0, words == "no", population, rows, given),
        unscored=_part("unscored", 1.0, words == "unscored", population, rows, given),
        prevalence=prevalence,
        labels_needed=tuple(
            _needed(statistic, width, source, against_people, rows, population, given)
            for statistic in PLANNED
            for width in widths
        ),
    )


def _part(
    verdict: str,
    wrong_label: float,
    chosen: Booleans,
    population: Counter[str],
    rows: AuditRows,
    given: Resampling,
) -> Part:
    truth = rows.reference[chosen]
    is_labelled = ~np.isnan(truth)
    is_wrong = np.where(is_labelled, truth == wrong_label, np.nan)
    design = rows.design.subset(chosen)
    wrong = share(is_wrong, design, **given)
    count = population[verdict]
    return Part(
        verdict=verdict,
        population=count,
        num_labelled=int(is_labelled.sum()),
        num_videos=len(np.unique(design.videos[is_labelled])),
        wrong=wrong,
        num_wrong=Estimate(wrong.value * count, wrong.low * count, wrong.high * count),
    )


def _needed(
    statistic: str,
    width: float,
    source: JudgeView,
    against_people: Agreement,
    rows: AuditRows,
    population: Counter[str],
    given: Resampling,
) -> LabelsNeeded:
    found: Estimate = getattr(against_people, statistic)
    shares = (
        against_people.judged_yes.value,
        against_people.kept_but_insufficient.value,
        against_people.rejected_but_sufficient.value,
    )
    if any(math.isnan(value) for value in shares):
        return LabelsNeeded(statistic, width, found.width, None, math.nan)
    effect = design_effect(
        source.said, rows.reference, rows.design, statistic,
        **given,
    )  # fmt: skip
    is_labelled = ~np.isnan(rows.reference) & ~np.isnan(source.said)
    for_yes = float(source.said[is_labelled].mean())
    asked_about, part = {
        "kept_but_insufficient": (population["yes"], for_yes),
        "rejected_but_sufficient": (population["no"], 1 - for_yes),
    }.get(statistic, (population["yes"] + population["no"], 1.0))
    try:
        planned = required_labels(
            JudgeGuess(*shares),
            statistic,
            width,
            labels_for_yes=for_yes,
            design_effect=effect if effect > 0 else 1.0,
            seed=given["seed"],
        )
    except ValueError:  # more than a million labels, or a share of labels that is 0
        return LabelsNeeded(statistic, width, found.width, None, effect)
    num_labels = math.ceil(in_finite_population(planned * part, asked_about) / part)
    return LabelsNeeded(statistic, width, found.width, num_labels, effect)


def in_finite_population(num_labels: float, population: int) -> float:
    """Labels that do in `population` rows what `num_labels` do in endless ones: 1 / (1/n + 1/N).

    Cochran, Sampling Techniques (3rd edition, 1977), equation 4.2.
    """
    return 1 / (1 / num_labels + 1 / population)
