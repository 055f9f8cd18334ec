"""Do an audit's 95 % intervals cover, is the corrected prevalence unbiased, do label counts hold?

    python benchmarks/audit_coverage.py [--audits 2000] [--labels 200] [--quick]

Each simulated audit makes a new population of about 2,500 rows, judges it with set error rates,
draws and labels a sample, and compares every interval with the true value in that population.
Each setting's part of the report goes to stderr as soon as it is known. `methods` does the same for
the percentile, BCa and studentised bootstrap. Prints JSON; --quick takes less than a minute and is
too coarse to judge by.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from other_bootstraps import STATISTICS, intervals
from simulated_audits import (
    NUM_SLICES,
    Population,
    Sample,
    World,
    draw_sample,
    make_population,
    other_population,
)

from judges.audits.report.data_impact import in_finite_population
from judges.audits.report.slices import slice_estimates
from judges.statistics.agreement import Agreement, agreement, human_ceiling
from judges.statistics.cluster_bootstrap import Estimate, Floats
from judges.statistics.coefficients import (
    gwet_ac1,
    krippendorff_alpha,
    num_paired_values,
    pair_agreement,
    rating_features,
)
from judges.statistics.paired_comparison import compare_judges
from judges.statistics.prevalence import (
    corrected_prevalence,
    prediction_powered_mean,
    transported_prevalence,
)
from judges.statistics.sample_size import JudgeGuess, design_effect, required_labels

ESTIMATES = [name for name, kind in Agreement.__annotations__.items() if kind is Estimate]
ERRORS = (0.05, 0.1, 0.2)
RESAMPLES = 500
_MIN_INTERVALS = 8  # audits per interval, at most
Record = dict[str, float]


def worlds(error: float) -> dict[str, World]:
    return {
        "symmetric": World(error, error),
        "asymmetric": World(error * 1.8, error * 0.2),
        "by_slice": World(error, error, differs_by_slice=True),
    }


def audit_once(world: World, num_labels: int, seed: int) -> Record:
    """One audit: for each interval 1 if it covers, for each prevalence its error."""
    generator = np.random.default_rng([seed, 7])
    population = make_population(world, generator)
    sample = draw_sample(population, num_labels, seed)
    record = {}
    for name, covers in _covered(population, sample, seed):
        record[f"covers {name}"] = covers
    others = other_population(world, generator)
    truth = float(population.truth.mean())
    simple = draw_sample(population, num_labels, seed, is_stratified=False)
    for scheme, drawn in (("stratified", sample), ("simple", simple)):
        verdicts, labels = population.verdicts[drawn.rows], population.truth[drawn.rows]
        corrected = corrected_prevalence(
            verdicts,
            labels,
            drawn.design,
            judged_yes=population.judged_yes,
            num_judged=len(population.verdicts),
            resamples=RESAMPLES,
            seed=seed,
        )
        elsewhere = transported_prevalence(
            verdicts,
            labels,
            drawn.design,
            judged_yes=others.judged_yes,
            num_judged=len(others.verdicts),
            resamples=RESAMPLES,
            seed=seed,
        )
        normal = prediction_powered_mean(
            labels,
            verdicts,
            population.judged_yes,
            len(population.verdicts),
            weights=drawn.design.weights,
        ).mean
        for name, estimate, true in (
            ("rogan_gladen", corrected.rogan_gladen, truth),
            ("prediction_powered", corrected.prediction_powered, truth),
            ("transported", elsewhere, float(others.truth.mean())),
        ):
            record[f"covers {name} {scheme}"] = _covers(estimate, true)
            record[f"error {name} {scheme}"] = estimate.value - true
        record[f"error naive {scheme}"] = corrected.naive - truth
        record[f"normal prediction_powered {scheme}"] = _covers(normal, truth)
    return record


def _covered(population: Population, sample: Sample, seed: int) -> Iterator[tuple[str, float]]:
    """The judge overall and by slice, three annotators, a second judge."""
    rows, design = sample.rows, sample.design
    verdicts, labels = population.verdicts[rows], population.truth[rows]
    for part in ("all", *range(NUM_SLICES)):
        chosen = np.ones(len(rows), bool) if part == "all" else population.slices[rows] == part
        in_population = None if part == "all" else population.slices == part
        true = population.statistics(in_population)
        found = agreement(
            verdicts[chosen],
            labels[chosen],
            design.subset(chosen),
            resamples=RESAMPLES,
            seed=seed,
        )
        if part == "all":
            for name in ESTIMATES:
                if name != "judged_yes":  # known, not estimated: its interval has no width
                    yield f"{name} all", _covers(getattr(found, name), true[name])
        else:
            for name, estimate in slice_estimates(found).items():
                yield f"{name} of a slice {part}", _covers(estimate, true[name])

    generator = np.random.default_rng([seed, 8])
    count = len(population.truth)
    wrong = generator.random((3, count)) < [[0.03], [0.06], [0.1]]
    ratings = np.where(wrong, 1 - population.truth, population.truth)
    ratings[generator.random((3, count)) < 0.2] = np.nan
    in_sample = human_ceiling(ratings[:, rows], design, resamples=RESAMPLES, seed=seed)
    in_all = _ceiling_values(ratings)
    for name in ("agreement", "ac1", "alpha"):
        yield f"human {name}", _covers(getattr(in_sample, name), in_all[name])

    second = np.where(generator.random(count) < 0.12, 1 - population.truth, population.truth)
    compared = compare_judges(
        verdicts, second[rows], labels, design, resamples=RESAMPLES, seed=seed
    )
    difference = float(
        (population.verdicts == population.truth).mean() - (second == population.truth).mean()
    )
    yield "difference of judges", _covers(compared.difference, difference)


def _ceiling_values(ratings: Floats) -> dict[str, float]:
    totals = rating_features(ratings).sum(axis=0)
    return {
        "agreement": float(pair_agreement(totals)),
        "ac1": float(gwet_ac1(totals)),
        "alpha": float(krippendorff_alpha(totals, num_paired_values(ratings))),
    }


def _covers(estimate: Estimate, true: float) -> float:
    """1 or 0; NaN where either is not defined, so that it counts for neither."""
    if math.isnan(estimate.value) or math.isnan(true):
        return math.nan
    return float(estimate.low - 1e-12 <= true <= estimate.high + 1e-12)


def methods_once(world: World, num_labels: int, seed: int) -> Record:
    """Coverage of the other bootstraps on the same audits."""
    population = make_population(world, np.random.default_rng([seed, 7]))
    sample = draw_sample(population, num_labels, seed)
    verdicts, labels = population.verdicts[sample.rows], population.truth[sample.rows]
    true = population.statistics()
    found = agreement(verdicts, labels, sample.design, resamples=RESAMPLES, seed=seed)
    record = {f"bayesian {name}": _covers(getattr(found, name), true[name]) for name in STATISTICS}
    for method, bounds in intervals(verdicts, labels, sample.design, RESAMPLES, seed).items():
        for name, (low, high) in bounds.items():
            record[f"{method} {name}"] = _covers(Estimate(0.0, low, high), true[name])
    return record


def widths_once(world: World, num_labels: int, statistic: str, seed: int) -> Record:
    """Width of one interval, and the design effect that this audit would report."""
    population = make_population(world, np.random.default_rng([seed, 7]))
    sample = draw_sample(population, num_labels, seed)
    verdicts, labels = population.verdicts[sample.rows], population.truth[sample.rows]
    found = agreement(verdicts, labels, sample.design, resamples=RESAMPLES, seed=seed)
    effect = design_effect(verdicts, labels, sample.design, statistic, resamples=RESAMPLES)
    return {"width": getattr(found, statistic).width, "design_effect": effect}


def repeat(
    once: Callable[..., Record], audits: int, jobs: ProcessPoolExecutor, *arguments: Any
) -> dict[str, Floats]:
    records = list(
        jobs.map(once, *([argument] * audits for argument in arguments), range(audits), chunksize=8)
    )
    return {name: np.array([record[name] for record in records]) for name in records[0]}


def coverage_of(columns: dict[str, Floats], prefix: str) -> dict[str, float]:
    """Percent covered; the slices of one statistic together.

    Left out is what a report gave too seldom to judge its coverage by: fewer than one interval in
    eight audits.
    """
    joined: dict[str, list[Floats]] = {}
    for name, values in columns.items():
        if name.startswith(prefix):
            key = name.removeprefix(prefix).removesuffix(" all")
            key = key[:-2] if key[-1].isdigit() and key[-2] == " " else key
            joined.setdefault(key, []).append(values)
    return {
        key: round(100 * float(np.nanmean(np.concatenate(values))), 2)
        for key, values in joined.items()
        if np.isfinite(np.concatenate(values)).sum() >= len(values[0]) / _MIN_INTERVALS
    }


def bias_of(columns: dict[str, Floats]) -> dict[str, dict[str, float]]:
    """Mean error in points with its Monte Carlo standard error."""
    return {
        name.removeprefix("error "): {
            "mean_error_points": round(100 * float(values.mean()), 3),
            "monte_carlo_error_points": round(
                100 * float(values.std(ddof=1)) / math.sqrt(len(values)), 3
            ),
        }
        for name, values in columns.items()
        if name.startswith("error ")
    }


def check_planning(audits: int, jobs: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Ask for the number of labels, then audit with that many and see how wide intervals are."""
    rows = []
    for error in ERRORS:
        world = World(error, error)
        population = make_population(world, np.random.default_rng(0))
        true = population.statistics()
        guess = JudgeGuess(
            true["judged_yes"], true["kept_but_insufficient"], true["rejected_but_sufficient"]
        )
        for statistic, width in (("agreement", 0.08), ("kappa", 0.2)):
            pilot = repeat(widths_once, audits, jobs, world, 200, statistic)
            effect = float(pilot["design_effect"].mean())
            planned = required_labels(
                guess, statistic, width, labels_for_yes=true["judged_yes"], design_effect=effect
            )
            num_labels = round(in_finite_population(planned, len(population.truth)))
            measured = repeat(widths_once, audits, jobs, world, num_labels, statistic)
            mean_width = float(measured["width"].mean())
            rows.append(
                {
                    "error": error,
                    "statistic": statistic,
                    "width": width,
                    "design_effect": round(effect, 3),
                    "labels": num_labels,
                    "measured_width": round(mean_width, 4),
                    "labels_over_needed": round((width / mean_width) ** 2, 3),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audits", type=int, default=2000)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="10 audits per setting")
    options = parser.parse_args()
    audits = 10 if options.quick else options.audits
    started = time.perf_counter()
    report: dict[str, Any] = {"audits": audits, "labels": options.labels, "settings": []}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as jobs:
        for error in ERRORS:
            for kind, world in worlds(error).items():
                columns = repeat(audit_once, audits, jobs, world, options.labels)
                methods = repeat(methods_once, max(audits // 4, 1), jobs, world, options.labels)
                coverage = coverage_of(columns, "covers ")
                report["settings"].append(
                    {
                        "error": error,
                        "kind": kind,
                        "coverage": coverage,
                        "outside_92_to_98": sorted(
                            name for name, percent in coverage.items() if not 92 <= percent <= 98
                        ),
                        "prevalence": bias_of(columns),
                        "normal_interval_coverage": coverage_of(columns, "normal "),
                        "methods": coverage_of(methods, ""),
                    }
                )
                print(json.dumps(report["settings"][-1]), file=sys.stderr, flush=True)
        report["required_labels"] = check_planning(max(audits // 4, 1), jobs)
    report["seconds"] = round(time.perf_counter() - started, 1)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
