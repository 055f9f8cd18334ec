"""Strict and tolerant reading of whole outputs, the answer check, and published scores."""

import json
import time
from pathlib import Path

import pytest
from helpers.scoring_questions import choice_question, grounding_question, question
from hypothesis import given
from hypothesis import strategies as st

from judges.scoring.answer_score import (
    check_answer,
    extract_answer,
    score_answer,
    validate_gold,
)
from judges.scoring.choices import chosen_letter
from judges.scoring.text import extract_strict, extract_tolerant
from schemas.answer_options import duplicate_options
from schemas.questions import ProblemType, strip_answer_tags

STRICT_AND_TOLERANT = [
    # output, strict, tolerant
    ("<answer>B</answer>", "B", "B"),
    ("<think>x</think><answer> B\n</answer>", "B", "B"),
    ("<answer>B</answer> and more", "B", "B"),
    ("<answer></answer>", "", ""),
    ("<answer>A</answer><answer>B</answer>", None, "B"),
    ("<think><answer>A</answer></think><answer>B</answer>", None, "B"),
    ("<answer><answer>B</answer></answer>", None, "B"),
    ("<answer>A<answer>B</answer>", None, "B"),
    ("</answer>B<answer>", None, None),
    ("<ANSWER>B</ANSWER>", None, "B"),
    ("< answer >B</ answer >", None, "B"),
    ("<think>x</think><answer>B", None, "B"),
    ("<think>x</think>B", None, "B"),
    ("<think>x</think>\n\nThe answer is B.", None, "B"),
    ("B", None, "B"),
    (" 12 cm \n", None, "12 cm"),
    ("A long walk.\n\nB", None, "B"),
    ("First A.\nThe answer is A? No.\nThe correct answer is: (C).", None, "(C)"),
    ("So the **Answer:** B. Horizontal stripes", None, "B"),
    ("The answer is B because she smiles.", None, "B"),
    ("The correct option is D", None, "D"),
    (
        r"Thus \boxed{3.5} holds."
        + "\nThat is all that can be said of the long story told here." * 2,
        None,
        "3.5",
    ),
    ("The answer is 3.5.", None, "3.5"),
    ("<think>I see B", None, None),
    ("<observation>x</observation><think>the answer is B", None, None),
    ("<think>the answer is A</think>", None, None),
    ("", None, None),
    (" \n ", None, None),
    (
        "It begins.\n"
        + "It goes on and on without an end that says anything at all, for long. " * 2,
        None,
        None,
    ),
]


@pytest.mark.parametrize(("output", "strict", "tolerant"), STRICT_AND_TOLERANT)
def test_strict_wants_one_block_and_tolerant_the_last_or_an_ending(
    output: str, strict: str | None, tolerant: str | None
) -> None:
    assert extract_strict(output) == strict
    assert extract_tolerant(output) == tolerant


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="<>")), st.text())
def test_what_strict_reads_tolerant_reads_too(before: str, answer: str, after: str) -> None:
    output = f"{before}<answer>{answer}</answer>{after}"
    strict = extract_strict(output)
    if strict is not None and "answer" not in (before + after).lower():
        assert strict == extract_tolerant(output) == answer.strip()


@pytest.mark.parametrize(
    "piece",
    [
        "<answer>",
        "</answer>",
        "<answer>B</answer>",
        "<",
        "< ",
        "answer ",
        "answer is ",
        " ",
        "x, ",
        "\n",
        "\\boxed{",
        "<think>",
        "best ",
    ],
)
def test_a_megabyte_of_output_is_read_in_linear_time(piece: str) -> None:
    output = piece * (1_000_000 // len(piece))
    started = time.process_time()
    extract_strict(output)
    extracted = extract_tolerant(output + " The answer is x" + " " * 100_000 + "y")
    score_answer(choice_question(), extracted or "")
    assert time.process_time() - started < 20


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "strict", "tolerant", "found_strict"),
    [
        # Published: 64.16 % = 401/625.
        ("videochat_r1_mmvu.jsonl", 401, 401, 625),
        # Published 65.44 % = 409/625, which leaves two tagged right answers unread: 411.
        ("qwen2_5_vl_7b_zeroshot_mmvu.jsonl", 2, 411, 3),
    ],
)
def test_published_outputs_score_as_published(
    shared_data: Path, file: str, strict: int, tolerant: int, found_strict: int
) -> None:
    rows = [json.loads(line) for line in (shared_data / "outputs" / file).open(encoding="utf-8")]
    assert len(rows) == 625
    scores = {"strict": [], "tolerant": []}
    for row in rows:
        asked = choice_question(
            strip_answer_tags(row["ground_truth"]), tuple(row["question"]["options"])
        )
        for name, extract in (("strict", extract_strict), ("tolerant", extract_tolerant)):
            answer = extract(row["model_output"])
            if answer is not None:
                scores[name].append(score_answer(asked, answer))
    assert len(scores["strict"]) == found_strict
    assert len(scores["tolerant"]) == 625
    assert (sum(scores["strict"]), sum(scores["tolerant"])) == (strict, tolerant)


@pytest.mark.data
def test_the_gold_answers_of_the_real_questions_score_1_against_themselves(
    shared_data: Path,
) -> None:
    rows = json.loads((shared_data / "real" / "questions.json").read_text(encoding="utf-8"))
    assert len(rows) == 27
    assert len({row["problem_type"] for row in rows}) == len(ProblemType)
    for row in rows:
        gold = strip_answer_tags(row["solution"])
        asked = question(ProblemType(row["problem_type"]), gold, tuple(row["options"]))
        assert validate_gold(asked) is None
        assert not asked.options or duplicate_options(asked.options) == ()
        assert score_answer(asked, gold) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("asked", "answer", "metric", "extracted"),
    [
        (choice_question("B"), "(b) Horizontal stripes", "option_match", "B"),
        (question(ProblemType.NUMERICAL, "1200"), "$1,200", "number_match", "1200"),
        (question(ProblemType.REGRESSION, "8"), "8 s", "one_minus_relative_error", "8"),
        (question(ProblemType.OCR, "Big Buck"), " Big Buck ", "one_minus_wer", "Big Buck"),
        (question(ProblemType.FREE_FORM, "a baby"), "a baby\n", "mean_rouge", "a baby"),
        (grounding_question("4 to 5"), "[4, 5.0]", "interval_iou", "4 to 5"),
    ],
)
def test_a_check_names_its_metric_and_the_answer_as_it_was_read(
    asked: object, answer: str, metric: str, extracted: str
) -> None:
    check = check_answer(asked, answer)
    assert (check.metric, check.extracted, check.passed) == (metric, extracted, True)
    assert check.score == pytest.approx(1.0)


def test_an_unreadable_answer_is_kept_as_it_stands_and_fails() -> None:
    check = check_answer(choice_question("B"), " A or B ")
    assert (check.score, check.passed, check.extracted) == (0.0, False, "A or B")


@pytest.mark.parametrize(
    ("gold", "answer", "threshold", "passed"),
    [
        ("a b c d e", "a b c", 0.6, True),  # exactly 0.6: what is below is dropped
        ("a b c d e", "a b", 0.6, False),
        ("a b c d e", "a", 0.2, True),  # 1 - 4/5 is 0.19999999999999996 in floats
        ("a b c d e", "a b c", 0.61, False),
    ],
)
def test_a_score_at_the_threshold_passes(
    gold: str, answer: str, threshold: float, passed: bool
) -> None:
    check = check_answer(question(ProblemType.OCR, gold), answer, threshold=threshold)
    assert check.passed is passed


@given(st.sampled_from(list(ProblemType)), st.text(max_size=60))
def test_every_text_has_a_score_between_0_and_1(problem_type: ProblemType, answer: str) -> None:
    match problem_type:
        case ProblemType.MULTIPLE_CHOICE:
            gold = choice_question()
        case ProblemType.TEMPORAL_GROUNDING:
            gold = grounding_question("1 to 2")
        case _:
            gold = question(problem_type, "7")
    assert 0.0 <= score_answer(gold, answer) <= 1.0
    assert 0.0 <= score_answer(gold, answer, integer_seconds=True) <= 1.0


@pytest.mark.parametrize(
    ("output", "tolerant"),
    [
        ("A. dog\nB. cow\nC. hen\nD. pig", None),  # the options once more
        ("A. dog: correct\nB. cow: not shown", None),
        ("- (A) it barks\n- (B) it is too large", None),
        ("Option A: right\nOption B: wrong", None),
        ("1. A. dog\n2. B. cow", None),
        ("A. dog\nB. cow\n\nB", "B"),
        ("A. dog\nB. cow\nThe answer is A", "A"),
        ("It barks.\nA. dog", "A. dog"),
    ],
)
def test_the_last_line_of_a_list_of_options_is_no_answer(output: str, tolerant: str | None) -> None:
    assert extract_tolerant(output) == tolerant


@pytest.mark.parametrize(
    ("output", "chosen"),
    [
        ("The answer is A. No, wait, the answer is B.", "B"),  # in one line
        ("My first answer is A. My second answer is B", "B"),
        ("The answer is A... no, the answer is B.", "B"),
        ("The answer is: the correct option is B.", "B"),
        ("The answer is A. Actually, it should be B.", None),
        ("The answer is A.\n\nWait, B fits better.", None),
        ("The answer is A. Hmm, no.", None),
        ("The wrong answer is A.", None),
        ("The answer is B. Note that A is a cow.", "B"),
        (r"\boxed{A} or \boxed{B}", None),
        (r"$\boxed{A}$, $\boxed{B}$", None),
        (r"\boxed{A} was my guess, but it is \boxed{B}", "B"),
        ("答案是：选项B", "B"),
    ],
)
def test_the_last_claim_counts_and_one_that_is_taken_back_is_none(
    output: str, chosen: str | None
) -> None:
    answer = extract_tolerant(output)
    assert (answer and chosen_letter(answer, ["A. dog", "B. cow"])) == chosen


def test_many_claims_in_one_line_are_read_in_linear_time() -> None:
    started = time.process_time()
    assert extract_tolerant("the answer is A. " * 100_000 + "The answer is B.") == "B"
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("5\n\nThere are five people.", "5"),
        ("**5 people**\n\nThey stand at the left.", "5 people**"),
        ("# 5\n\nThey stand.\n\nSo the answer is 5.", "5"),
        ("### Answer\n5\n\nThey stand.", "5"),
        ("5\n\nNo: a sixth one comes. So the answer is 6.", None),
        ("5\n6", None),
        ("The answer is 5.\nWait, 6.", None),
        ("5\n\nThe answer is 5. Wait, no.", None),
        ("There are some.\n5", "5"),
        ("5", "5"),
        ("-5\n\nIt is cold.", "-5"),
        ("5\n<answer>6</answer>", "6"),
        ("<think>4</think>5\n\nThere are five.", "5"),
        ("3 dogs and 2 cats\n\nAll in all 5", "All in all 5"),
    ],
)
def test_a_number_alone_on_the_first_line_is_the_answer(reply: str, answer: str | None) -> None:
    for kind in (ProblemType.NUMERICAL, ProblemType.REGRESSION):
        assert extract_answer(reply, question(kind, "5")) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("3 to 5\n\nThe man runs then.", "3 to 5"),
        ("3 to 5\n\nThe answer is 7 to 9.", None),
        ("The answer is 3 to 5. Wait, 7 to 9.", None),
        ("Frames 30 to 50\n3 to 5", "3 to 5"),
    ],
)
def test_a_span_alone_on_the_first_line_is_the_answer(reply: str, answer: str | None) -> None:
    grounding = question(ProblemType.TEMPORAL_GROUNDING, "3 to 5")
    assert extract_answer(reply, grounding) == answer


def test_options_and_texts_are_read_as_before() -> None:
    options = ("A. dog", "B. cow")
    assert extract_answer("B. cow\n\nIt has horns.", choice_question("B", options)) == "B"
    assert extract_answer("A walk.\nA run", question(ProblemType.FREE_FORM, "a run")) == "A run"
