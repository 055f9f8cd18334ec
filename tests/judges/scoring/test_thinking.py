"""What is thought is not said: the marks of several families of models."""

import pytest

from judges.scoring.choices import chosen_letter
from judges.scoring.text import extract_strict, extract_tolerant
from judges.scoring.thinking import spoken, with_opened_thinking
from judges.sufficiency import parse_judgement

OPTIONS = ["A. dog", "B. cow"]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("<think>A?</think>B", "B"),
        ("A?</think>\n\nB", "B"),  # the template opened it
        ("<thinking>A?</thinking> B", "B"),
        ("[THINK]A?[/THINK]B", "B"),
        ("◁think▷A?◁/think▷B", "B"),
        ("<seed:think>A?</seed:think>B", "B"),
        ("<|channel|>analysis<|message|>A?<|end|><|channel|>final<|message|>B", "B"),
        ("analysisIt could be A. assistantfinalB", "B"),
        ("<think>A?</think>no, <think>again</think>B", "B"),
        ("&lt;think&gt;A?&lt;/think&gt;B", "B"),  # escaped on the way
        ("<think>A?<\\/think>B", "B"),
        ("<inner_monologue>A?</inner_monologue>B", "B"),
        ("<think>A? and no end", ""),
        ("B", "B"),
        ("x < think and y > 3: B", "x < think and y > 3: B"),
    ],
)
def test_only_what_follows_the_last_thought_is_said(reply: str, said: str) -> None:
    assert spoken(reply).said.strip() == said


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (
            "<judgement>Yes</judgement> or <judgement>No</judgement>; it can be deduced.</think>"
            " <judgement>Yes</judgement>",
            "yes",
        ),
        ("<think><judgement>Yes</judgement></think> <judgement>No</judgement>", "no"),
    ],
)
def test_a_verdict_is_read_behind_what_is_thought(reply: str, verdict: str) -> None:
    assert parse_judgement(reply).verdict == verdict


@pytest.mark.parametrize(
    "reply",
    [
        "<judgement>No</judgement> or so</think>",
        "<think><judgement>No</judgement></think> It is hard to say.",
        "<think> I think <judgement>No</judgement>",
    ],
)
def test_a_verdict_that_was_only_thought_is_none(reply: str) -> None:
    assert parse_judgement(reply).verdict == "unscored"


@pytest.mark.parametrize(
    "reply",
    [
        "Could it be <answer>A</answer>? No, horns.</think>\n\nThe answer is B",
        "<think>first idea <answer>A</answer></think> B",
        "<think>hm</think>\n\\boxed{\\text{B}}",
        "<think>I look.</think><answer>The final answer is $\\boxed{B}$.</answer>",
        "<think>I look.</think><answer>**B**.</answer>",
        "<think>I look.</think><answer>【B】</answer>",
        "<think>I look.</think><answer>答案：B</answer>",
    ],
)
def test_an_answer_is_read_behind_what_is_thought(reply: str) -> None:
    answer = extract_tolerant(reply)
    assert answer is not None
    assert chosen_letter(answer, OPTIONS) == "B"


def test_a_thought_answer_is_no_strict_answer() -> None:
    assert extract_strict("<think><answer>A</answer></think> The animal is a cow.") is None


@pytest.mark.parametrize(
    ("prompt", "reply", "read"),
    [
        (
            "assistant\n<think>\n",
            "It barks. The answer is A. But",
            "<think>It barks. The answer is A. But",
        ),
        ("assistant\n<think>\n", "It barks.</think>A", "It barks.</think>A"),
        ("assistant\n<think>\n\n</think>\n\n", "A", "A"),  # told not to think
        ("assistant\n", "A", "A"),
        ("Write <think> first.\nassistant\n", "A", "A"),
    ],
)
def test_thinking_that_the_prompt_opened_and_nothing_ended_is_no_answer(
    prompt: str, reply: str, read: str
) -> None:
    assert with_opened_thinking(prompt, reply) == read


def test_thinking_that_was_cut_off_has_no_answer() -> None:
    cut = with_opened_thinking("<think>", "The answer is A. But <judgement>No</judgement>")
    assert extract_tolerant(cut) is None
    assert parse_judgement(cut).verdict == "unscored"
