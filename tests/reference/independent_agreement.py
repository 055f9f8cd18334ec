# /// script
# requires-python = ">=3.11,<3.12"
# dependencies = [
#     "irrCAC==0.4.4", "ppi-python==0.2.3", "krippendorff==0.9.0", "scikit-learn", "statsmodels",
# ]
# [tool.uv]
# override-dependencies = ["coverage>=7.6"]  # irrCAC pins one that numba (of ppi-python) cannot use
# ///
"""Values of agreement coefficients and prediction-powered means by implementations of others.

    uv run tests/reference/independent_agreement.py

Writes `agreement_values.json` beside this file: the inputs, who computed what from them, and where
an example was published, what was printed there. These packages want an old numpy, so they get an
environment of their own and no part in the tests' one.
"""

import json
import math
import re
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pandas as pd
from irrCAC.raw import CAC
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

DIGITS = 15
Labels = list[list[float | None]]


def expanded(table: list[list[int]]) -> Labels:
    """Two raters' labels from their contingency table (first rater in rows)."""
    pairs = [
        (first, second)
        for first, row in enumerate(table)
        for second, count in enumerate(row)
        for _ in range(count)
    ]
    return [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]


def from_counts(counts: list[list[int]]) -> Labels:
    """Raters' labels from how many of them chose each category, row by row."""
    rows = [[k for k, count in enumerate(row) for _ in range(count)] for row in counts]
    return [list(labels) for labels in zip(*rows, strict=True)]


def in_yes_and_no(table: list[list[int]]) -> Labels:
    """Tables print yes first; here 1 is yes."""
    return [[1 - label for label in labels] for labels in expanded(table)]


N = None
RATINGS: dict[str, tuple[str, list[float], Labels, dict[str, float]]] = {
    # name: source, categories, labels by rater, values printed in the source
    "krippendorff_binary": (
        "Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section A",
        [0, 1],
        [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]],
        {"alpha": 0.095},
    ),
    "krippendorff_two_observers": (
        "Krippendorff (2011), section B",
        [0, 1, 2, 3, 4],
        [[0, 0, 1, 1, 3, 2, 2, 2, 4, 3, 3, 0], [1, 0, 1, 1, 1, 2, 2, 2, 4, 3, 3, 3]],
        {"alpha": 0.692},
    ),
    "krippendorff_missing": (
        "Krippendorff (2011), section C; Gwet (2014), Handbook, table 2.10 (irrCAC raw_4raters)",
        [1, 2, 3, 4, 5],
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
            [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
        ],
        {"alpha": 0.743},
    ),
    "gwet_four_raters": (
        "Gwet (2014), Handbook of Inter-Rater Reliability, data of irrCAC raw_4raters",
        [1, 2, 3, 4, 5],
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, N],
            [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 3],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
        ],
        {"ac1": 0.77544, "agreement": 0.81818, "alpha": 0.74342},
    ),
    "feinstein_cicchetti_balanced": (
        "Feinstein and Cicchetti (1990), J. Clin. Epidemiol. 43, table 1",
        [0, 1],
        in_yes_and_no([[40, 9], [6, 45]]),
        {"agreement": 0.85, "kappa": 0.70},
    ),
    "feinstein_cicchetti_paradox": (
        "Feinstein and Cicchetti (1990), table 2: the same agreement, another kappa",
        [0, 1],
        in_yes_and_no([[80, 10], [5, 5]]),
        {"agreement": 0.85, "kappa": 0.32},
    ),
    "gwet_paradox": (
        "Gwet (2002), Kappa statistic is not satisfactory, table 1",
        [0, 1],
        in_yes_and_no([[118, 5], [2, 0]]),
        {"kappa": -0.0234, "ac1": 0.9408},
    ),
    "abstractors": (
        "Gwet (2014), irrCAC table_cont3x3abstractors",
        [0, 1, 2],
        expanded([[13, 0, 0], [0, 20, 7], [0, 4, 56]]),
        {},
    ),
    "fleiss_psychiatrists": (
        "Fleiss (1971), Psychological Bulletin 76, first 15 patients (irrCAC distrib_6raters)",
        [0, 1, 2, 3, 4],
        from_counts(
            [
                [0, 0, 0, 6, 0],
                [0, 3, 0, 0, 3],
                [0, 1, 4, 0, 1],
                [0, 0, 0, 0, 6],
                [0, 3, 0, 3, 0],
                [2, 0, 4, 0, 0],
                [0, 0, 4, 0, 2],
                [2, 0, 3, 1, 0],
                [2, 0, 0, 4, 0],
                [0, 0, 0, 0, 6],
                [1, 0, 0, 5, 0],
                [1, 1, 0, 4, 0],
                [0, 3, 3, 0, 0],
                [1, 0, 0, 5, 0],
                [0, 2, 0, 3, 1],
            ]
        ),
        {},
    ),
    "one_always_yes": ("degenerate", [0, 1], [[1] * 10, [1, 1, 1, 0, 1, 0, 1, 1, 1, 1]], {}),
    "two_rows": ("degenerate", [0, 1], [[1, 0], [1, 1]], {}),
    "two_rows_apart": ("degenerate", [0, 1], [[1, 0], [0, 1]], {}),
    "perfect": ("degenerate", [0, 1], [[1, 0, 1, 1, 0], [1, 0, 1, 1, 0]], {}),
    "inverse": ("degenerate", [0, 1], [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]], {}),
    "missing_binary": (
        "degenerate: rows with one label and with none",
        [0, 1],
        [
            [1, 0, 1, N, 1, N, 0, 1, 1, N, 0, 1],
            [1, 0, N, N, 1, 0, 1, 1, N, N, 0, 1],
            [1, 1, N, 1, 0, N, 0, 1, N, N, 0, 1],
        ],
        {},
    ),
}


def random_ratings() -> Labels:
    generator = np.random.default_rng(20)
    truth = generator.random(60) < 0.8
    labels = np.where(generator.random((3, 60)) < 0.15, ~truth, truth).astype(float)
    labels[generator.random((3, 60)) < 0.25] = np.nan
    return [[None if math.isnan(x) else int(x) for x in row] for row in labels]


def coefficients(categories: list[float], labels: Labels) -> dict[str, float]:
    """By irrCAC, and by krippendorff and sklearn where those apply; they must agree."""
    array = np.array(labels, dtype=float)
    cac = CAC(pd.DataFrame(array.T), categories=categories, digits=DIGITS)
    gwet = cac.gwet()["est"]
    alpha = cac.krippendorff()["est"]["coefficient_value"]
    by_krippendorff = krippendorff.alpha(
        reliability_data=array, level_of_measurement="nominal", value_domain=categories
    )
    assert abs(alpha - by_krippendorff) < 1e-12, (alpha, by_krippendorff)
    values = {
        "agreement": float(gwet["pa"]),
        "ac1": float(gwet["coefficient_value"]),
        "alpha": float(by_krippendorff),
    }
    if len(labels) == 2 and len(categories) == 2 and not np.isnan(array).any():
        first, second = array
        values["kappa"] = float(cohen_kappa_score(first, second, labels=[0, 1]))
        conger = cac.conger()["est"]["coefficient_value"]
        assert abs(conger - values["kappa"]) < 1e-12, (conger, values["kappa"])
        values |= classification(first, second, None)
    return values


def classification(judge: Any, human: Any, weights: Any) -> dict[str, float]:
    """Precision, recall and F1 of Yes by sklearn; nothing where it would have to divide by 0."""
    if not judge.any() or not human.any():
        return {}
    precision, recall, f1, _ = precision_recall_fscore_support(
        human, judge, average="binary", sample_weight=weights, zero_division=np.nan
    )
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1)}


def weighted_case() -> dict[str, Any]:
    """Sampling weights: sklearn takes them; irrCAC takes integer weights as repeated rows."""
    generator = np.random.default_rng(21)
    human = (generator.random(40) < 0.7).astype(int)
    judge = np.where(generator.random(40) < 0.15, 1 - human, human)
    weights = generator.integers(1, 9, 40)
    repeated = np.stack([np.repeat(judge, weights), np.repeat(human, weights)])
    cac = CAC(pd.DataFrame(repeated.T.astype(float)), categories=[0, 1], digits=DIGITS)
    return {
        "judge": judge.tolist(),
        "human": human.tolist(),
        "weights": weights.tolist(),
        "values": {
            "kappa": float(cohen_kappa_score(judge, human, sample_weight=weights)),
            "agreement": float(cac.gwet()["est"]["pa"]),
            "ac1": float(cac.gwet()["est"]["coefficient_value"]),
            **classification(judge, human, weights),
        },
        "alpha_of_repeated_rows": float(cac.krippendorff()["est"]["coefficient_value"]),
    }


def prediction_powered_cases() -> list[dict[str, Any]]:
    generator = np.random.default_rng(22)
    cases = []
    for name, weighted, tuning in (
        ("tuned", False, None),
        ("tuned_weighted", True, None),
        ("plain", False, 1.0),
        ("plain_weighted", True, 1.0),
        ("labels_only", False, 0.0),
    ):
        labels = (generator.random(120) < 0.7).astype(float)
        predictions = np.where(generator.random(120) < 0.12, 1 - labels, labels)
        num_predicted, num_yes = 3000, 2210
        unlabelled = np.repeat([1.0, 0.0], [num_yes, num_predicted - num_yes])
        weights = generator.uniform(1, 6, 120) if weighted else None
        low, high = ppi_mean_ci(labels, predictions, unlabelled, alpha=0.05, lam=tuning, w=weights)
        # The interval's tuning starts from the plain estimate, as does the point estimate's.
        value = ppi_mean_pointestimate(labels, predictions, unlabelled, lam=tuning, w=weights)
        cases.append(
            {
                "name": name,
                "labels": labels.tolist(),
                "predictions": predictions.tolist(),
                "weights": None if weights is None else weights.tolist(),
                "tuning": tuning,
                "num_predicted": num_predicted,
                "num_predicted_yes": num_yes,
                "value": float(np.squeeze(value)),
                "low": float(np.squeeze(low)),
                "high": float(np.squeeze(high)),
            }
        )
    return cases


def mcnemar_cases() -> list[dict[str, Any]]:
    """Agresti, Categorical Data Analysis, section 10.1: 150 and 86 changed, chi2 = 17.36."""
    cases = []
    for only_first, only_second in ((150, 86), (0, 0), (3, 0), (7, 2), (12, 12)):
        table = [[794, only_first], [only_second, 570]]
        exact = mcnemar(table, exact=True).pvalue if only_first + only_second else 1.0
        chi2 = mcnemar(table, exact=False, correction=False) if only_first else None
        cases.append(
            {
                "only_first": only_first,
                "only_second": only_second,
                "exact_p": float(exact),
                "chi2_p": None if chi2 is None else float(chi2.pvalue),
            }
        )
    return cases


def wilson_cases() -> list[dict[str, Any]]:
    """Newcombe (1998), Statistics in Medicine 17, table I, method 3, and two degenerate ones."""
    printed = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611)}
    printed[1, 29] = (0.0061, 0.1718)
    cases = []
    for successes, trials in (*printed, (5, 5), (0, 1)):
        low, high = proportion_confint(successes, trials, method="wilson")
        jeffreys = proportion_confint(successes, trials, method="jeffreys")
        cases.append(
            {
                "successes": successes,
                "trials": trials,
                "low": float(low),
                "high": float(high),
                "printed": printed.get((successes, trials)),
                "jeffreys": [float(bound) for bound in jeffreys],
            }
        )
    return cases


def main() -> None:
    warnings.simplefilter("ignore")  # numpy's on degenerate tables: the values are checked
    ratings = dict(RATINGS)
    ratings["random_missing"] = ("random, three raters", [0, 1], random_ratings(), {})
    report = {
        "made_by": {
            name: version(name)
            for name in ("irrCAC", "ppi-python", "krippendorff", "scikit-learn", "statsmodels")
        },
        "ratings": {
            name: {
                "source": source,
                "categories": categories,
                "labels": labels,
                "printed": printed,
                "values": coefficients(categories, labels),
            }
            for name, (source, categories, labels, printed) in ratings.items()
        },
        "weighted": weighted_case(),
        "prediction_powered": prediction_powered_cases(),
        "mcnemar": mcnemar_cases(),
        "wilson": wilson_cases(),
    }
    path = Path(__file__).with_name("agreement_values.json")
    text = json.dumps(report, indent=1)
    on_one_line = re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    path.write_text(on_one_line + "\n", "utf-8")


if __name__ == "__main__":
    main()
