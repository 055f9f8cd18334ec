"""OCR and free-form answers: word error rate and ROUGE, as the libraries define them."""

import time

import pytest
from helpers.scoring_questions import question
from hypothesis import given
from hypothesis import strategies as st

from judges.scoring.answer_score import score_answer, validate_gold
from schemas.questions import ProblemType


def ocr(gold: str, answer: str) -> float:
    return score_answer(question(ProblemType.OCR, gold), answer)


def free_form(gold: str, answer: str) -> float:
    return score_answer(question(ProblemType.FREE_FORM, gold), answer)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Big Buck BUNNY", 1.0),
        ("  Big\tBuck\n\nBUNNY ", 1.0),  # any white space parts words
        ("Big Buck", 2 / 3),  # one deletion of three
        ("Big Buck BUNNY Film", 2 / 3),  # one insertion
        ("Big BUNNY Buck", 1 / 3),  # two edits
        ("big buck bunny", 0.0),  # case counts, as published
        ("Big Buck BUNNY.", 2 / 3),  # so does punctuation
        ("BigBuckBUNNY", 0.0),  # three edits: one substitution, two deletions
        ("a b c d e Big Buck BUNNY", 0.0),  # 5 insertions for 3 words: clipped, not -2/3
        ("x y z u v w", 0.0),
        ("", 0.0),
        (" \n", 0.0),
        ("...", 0.0),
        ("🙂", 0.0),
    ],
)
def test_ocr_is_one_minus_the_word_error_rate_and_never_below_0(answer: str, score: float) -> None:
    assert ocr("Big Buck BUNNY", answer) == pytest.approx(score, abs=1e-12)


words = st.lists(st.sampled_from(["a", "b", "c", "🙂", "d."]), min_size=1, max_size=8)


def edit_distance(left: list[str], right: list[str]) -> int:
    """The textbook table, apart from any library."""
    row = list(range(len(right) + 1))
    for i, one in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (one != other))
    return row[-1]


@given(words, st.lists(st.sampled_from(["a", "b", "c", "🙂", "d."]), max_size=20))
def test_ocr_equals_the_textbook_edit_distance(gold: list[str], answer: list[str]) -> None:
    expected = max(0.0, 1 - edit_distance(gold, answer) / len(gold))
    assert ocr(" ".join(gold), " ".join(answer)) == pytest.approx(expected, abs=1e-12)


def test_free_form_is_the_mean_of_three_rouge_scores_by_hand() -> None:
    # gold "the cat sat on the mat" (6 words), answer "the cat lay on a mat" (6 words)
    # ROUGE-1: the, cat, on, mat: P = R = 4/6. ROUGE-2: "the cat", 1 of 5. ROUGE-L: 4 of 6.
    expected = (4 / 6 + 1 / 5 + 4 / 6) / 3
    assert free_form("the cat sat on the mat", "the cat lay on a mat") == pytest.approx(expected)


def test_free_form_compares_stems_without_case_and_punctuation() -> None:
    assert free_form("The dogs are running", "the dog, are RUN!") == pytest.approx(1.0)


@given(
    st.lists(st.sampled_from(["a", "cat", "cats", "runs", "mat", "9"]), min_size=1, max_size=12),
    st.lists(st.sampled_from(["a", "cat", "ran", "runs", "mat", "..."]), max_size=12),
)
def test_free_form_equals_the_mean_of_the_library_s_three_scores(
    gold: list[str], answer: list[str]
) -> None:
    """ROUGE-L is computed apart from the library, for speed; here it must agree with it."""
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL"]
    scores = RougeScorer(kinds, use_stemmer=True).score(" ".join(gold), " ".join(answer))
    expected = sum(scores[kind].fmeasure for kind in kinds) / 3
    assert free_form(" ".join(gold), " ".join(answer)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("answer", ["", " ", "...", "🙂🙂", "<answer></answer>", "日本語"])
def test_free_form_without_shared_words_is_0(answer: str) -> None:
    assert free_form("A baby reads a book.", answer) == 0.0


@pytest.mark.parametrize(
    "answer",
    ["word " * 200_000, "a" * 1_000_000, "🙂 " * 500_000, "baby book " * 100_000, "a-" * 500_000],
    ids=["words", "one long word", "emoji", "gold words", "hyphens"],
)
@pytest.mark.parametrize("score", [ocr, free_form])
@pytest.mark.heavy
def test_a_megabyte_is_scored_in_linear_time(score: "type[ocr]", answer: str) -> None:
    """The library's own ROUGE-L table for these has 10^8 Python objects."""
    gold = " ".join(f"word{number}" for number in range(500)) + " baby book"
    started = time.process_time()
    assert 0.0 <= score(gold, answer) < 0.1
    assert time.process_time() - started < 60


@pytest.mark.parametrize(
    ("problem_type", "gold"),
    [(ProblemType.OCR, "  \n "), (ProblemType.FREE_FORM, "..."), (ProblemType.FREE_FORM, "日本")],
)
def test_a_gold_text_without_words_is_named(problem_type: ProblemType, gold: str) -> None:
    complaint = validate_gold(question(problem_type, gold))
    assert complaint is not None
    assert repr(gold) in complaint
