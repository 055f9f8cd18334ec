"""The builder's sufficiency filters keep what suffices and drop what does not, by the truth."""

from pathlib import Path

import pytest
from scipy import stats

from benchmarks.sufficiency_filters import compare, table

SHARE_SUFFICIENT = 0.7  # the teacher leaves out what decides in 3 of 10 traces
FEWEST_CHOICES = 2  # of the sandbox's questions: a guesser is right in half of the cases at most


def beats_itself(with_observation: float, blind: float) -> float:
    """The chance of two more correct answers of four with an observation than without (the margin
    of 0.5), where each answer is correct with these chances.
    """
    without, seen = stats.binom(4, blind), stats.binom(4, with_observation)
    return float(sum(without.pmf(count) * seen.sf(count + 1) for count in (0, 1, 2)))


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_precision_and_recall_of_each_filter_have_a_floor(tmp_path: Path) -> None:
    """Judge and reader know what an observation shows, so that all errors are those of the rule.

    The judge has none. A reader that sees what shows the answer gives it four times of four, and is
    only lost where it guessed three or four of four without it. One that sees nothing guesses, and
    passes where it beats its own guesses by two. With two choices, the worst case, these chances
    are 0.69 and 0.14, so that recall is at least 0.69 and precision 0.92; 0.07 below that is three
    standard deviations of the questions here. More choices, as most have, give more of both.
    """
    guess = 1 / FEWEST_CHOICES
    recall, passes = beats_itself(1, guess), beats_itself(guess, guess)
    assert (recall, passes) == pytest.approx((0.6875, 0.1445), abs=0.001)
    precision = SHARE_SUFFICIENT * recall / (SHARE_SUFFICIENT * recall + 0.3 * passes)
    found = compare(tmp_path, questions=120, judge="oracle:8", reader="oracle:9,blind=0.3")
    judge, answer, both = (found[name] for name in ("judge", "answer", "both"))
    assert judge.judged == answer.judged == both.judged == 120
    assert judge.sufficient == answer.sufficient == both.sufficient
    assert (judge.precision.value, judge.recall.value) == (1, 1)
    assert answer.precision.value >= precision - 0.07
    assert answer.recall_where_needed.value >= recall - 0.07
    assert answer.recall.value < answer.recall_where_needed.value  # what is known blind is dropped
    # The judge lets nothing wrong through, and the reader drops the same of what is left.
    assert both.precision.value == 1
    assert both.recall.value == answer.recall.value
    assert judge.calls_per_observation < both.calls_per_observation
    assert table(found).count("\n") == 4
