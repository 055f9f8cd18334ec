"""What is told of a part of the data, and what is not."""

import math

import numpy as np
import pytest

from judges.audits.report.number_format import MIN_ROWS
from judges.audits.report.slices import slice_estimates
from judges.statistics.agreement import Agreement, agreement
from judges.statistics.cluster_bootstrap import sample_design


def found(num_rejected: int) -> Agreement:
    """40 kept rows, one of them wrongly, and some rejected ones, all rightly."""
    said = np.array([1.0] * 40 + [0.0] * num_rejected)
    truth = said.copy()
    truth[0] = 0.0
    return agreement(said, truth, sample_design(list(range(len(said)))), resamples=200)


def test_a_share_among_a_dozen_rejected_rows_is_not_told() -> None:
    few, enough = slice_estimates(found(MIN_ROWS - 1)), slice_estimates(found(MIN_ROWS))
    assert math.isnan(few["rejected_but_sufficient"].value)
    assert math.isnan(few["rejected_but_sufficient"].high)
    assert enough["rejected_but_sufficient"].value == 0
    assert enough["rejected_but_sufficient"].high > 0.01
    assert few["kept_but_insufficient"].value == pytest.approx(1 / 40)
    assert few["agreement"].value == pytest.approx(1 - 1 / (40 + MIN_ROWS - 1))
