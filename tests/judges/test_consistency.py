"""What a reasoning concludes: by rules on its text, and by a language model's reply."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from judges.consistency import Extraction, extract_conclusion, is_mismatch, reasoning_of
from judges.consistency_llm import parse_extraction
from judges.scoring.text import extract_tolerant
from schemas.samples import UnscoredReason

FRUIT = ("A. apple", "B. banana", "C. cherry pie (sweet)", "D. no fruit at all")
LABELS = Path(__file__).parent / "consistency_labels.jsonl"

CONCLUSIONS = [
    ("So the answer is B.", "B", "states the letter"),
    (
        "Option A looks fine at first. Therefore, the correct option is (C).",
        "C",
        "a later one wins",
    ),
    ("I choose D because nothing else fits.", "D", "a choice in so many words"),
    ("The answer might be A. The answer is B.", "B", "what is hedged does not decide"),
    ("The answer might be A.", "A", "unless nothing else does"),
    ("The answer is not A. Option B is the most plausible.", "B", "what is denied does not count"),
    ("The options:\nA. apple\nB. banana\nThe best fit is banana.", "B", "a list is no conclusion"),
    ("It could be an apple. Therefore, it is most likely a banana.", "B", "named by its text"),
    ("This shows a banana rather than an apple.", "B", "denied by 'rather than'"),
    ("Given the crust, it is most likely a cherry pie.", "C", "brackets may be left out"),
    ("The video shows a banana.", "B", "the only option that is named"),
    ("Therefore it is an apple or a banana.", None, "two options are none"),
    ("There is no plate in the clip.", None, "'no' is a word, not the option"),
    ("Nothing can be said.", None, "nothing is concluded"),
    ("", None, "nothing is written"),
]


@pytest.mark.parametrize(
    ("think", "letter", "why"), CONCLUSIONS, ids=[why for *_, why in CONCLUSIONS]
)
def test_a_conclusion_is_read_from_its_words(think: str, letter: str | None, why: str) -> None:
    assert extract_conclusion(think, FRUIT).letter == letter


def test_an_option_in_other_words_is_recognised_where_it_clearly_leads() -> None:
    options = ("A. The ball rolls down the slope slowly", "B. The magnet attracts the iron ring")
    think = "Therefore, an iron ring is attracted by the magnet."
    assert extract_conclusion(think, options).rule == "words of the option"
    assert extract_conclusion(think, options).letter == "B"
    alike = ("A. The left magnet attracts the ring", "B. The right magnet attracts the ring")
    assert extract_conclusion("Therefore the magnet attracts the ring.", alike).letter is None


def test_the_place_of_the_conclusion_is_told() -> None:
    think = "A plate. Therefore, it is a banana."
    found = extract_conclusion(think, FRUIT)
    assert found.span is not None
    assert think[slice(*found.span)] == "banana"


@pytest.mark.parametrize(
    ("output", "reasoning"),
    [
        ("<think> a </think><answer>B</answer>", "a"),
        ("<think> never closed <answer>B</answer>", "never closed"),
        ("no tags <answer>B</answer>", "no tags"),
        ("<observation>o</observation><think>a</think><answer>B</answer>", "a"),
        ("nothing parts this. The answer is B.", ""),
    ],
)
def test_the_reasoning_is_what_stands_before_the_answer(output: str, reasoning: str) -> None:
    assert reasoning_of(output) == reasoning


def test_a_mismatch_needs_a_conclusion_and_an_answer() -> None:
    banana = Extraction("B", "states the letter")
    assert is_mismatch(banana, "A", FRUIT) is True
    assert is_mismatch(banana, "banana", FRUIT) is False
    assert is_mismatch(Extraction(None, "nothing concluded"), "A", FRUIT) is None
    assert is_mismatch(banana, "something else", FRUIT) is None


@pytest.mark.parametrize(
    ("reply", "letter", "reason"),
    [
        ("<extraction>B</extraction>", "B", None),
        ("It says A. <extraction> (b). </extraction>", "B", None),
        ("<extraction>A</extraction> no, wait: <extraction>C</extraction>", "C", None),
        ("<extraction>No</extraction>", None, UnscoredReason.NO_CONCLUSION),
        ("<extraction>A or B</extraction>", None, UnscoredReason.OFF_MENU),
        ("<extraction>E</extraction>", None, UnscoredReason.OFF_MENU),
        ("<extraction>A</extraction><extraction>B", None, UnscoredReason.OFF_MENU),
        ("The answer is B.", None, UnscoredReason.NO_JUDGEMENT),
        (" ", None, UnscoredReason.EMPTY_REPLY),
    ],
)
def test_the_last_extraction_decides_and_all_else_is_unscored(
    reply: str, letter: str | None, reason: UnscoredReason | None
) -> None:
    found = parse_extraction(reply, FRUIT)
    assert (found.letter, found.reason) == (letter, reason)


def published_answers(shared_data: Path) -> Iterator[dict[str, Any]]:
    path = shared_data / "outputs" / "videochat_r1_mmvu.jsonl"
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


@pytest.mark.data
def test_published_reasonings_are_read_as_people_read_them(shared_data: Path) -> None:
    """74 reasonings labelled by eye, 46 of them extracted.

    Figures, not wishes: where the rules name a letter they are nearly always right as long as it is
    the answer's, and one in three of the apparent mismatches is none.
    """
    labels = {row["problem_id"]: row["letter"] for row in map(json.loads, LABELS.open())}
    same, wrong, missed = [], [], []
    for row in published_answers(shared_data):
        number = row["question"]["problem_id"]
        if number not in labels:
            continue
        reasoning = reasoning_of(row["model_output"])
        letter = extract_conclusion(reasoning, row["question"]["options"]).letter
        if letter is None:
            missed.append(number)
        elif letter == labels[number]:
            same.append(number)
        else:
            wrong.append(number)
    assert len(labels) == 74
    assert len(same) + len(wrong) >= 40
    assert sorted(wrong) == [24, 175, 262, 450, 611]
    assert len(same) == 41


@pytest.mark.data
def test_the_mismatch_of_a_published_run_stands_beside_the_papers(shared_data: Path) -> None:
    """VideoP2R reports 11.9 % for this model on this benchmark (own run, extracted by Claude)."""
    found = []
    for row in published_answers(shared_data):
        options = row["question"]["options"]
        extraction = extract_conclusion(reasoning_of(row["model_output"]), options)
        answer = extract_tolerant(row["model_output"])
        assert answer is not None
        found.append(is_mismatch(extraction, answer, options))
    scored = [one for one in found if one is not None]
    assert (len(found), len(scored), sum(scored)) == (625, 263, 13)  # 4.9 % of what is concluded
