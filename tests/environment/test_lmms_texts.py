"""The bridge to lmms-eval: what its tasks ask and are told. Its own package is not needed here."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from schemas.prompting import task_prompt
from schemas.questions import MediaRef, ProblemType

MEDIA = [MediaRef(kind="video", path="clips/1.mp4")]


@pytest.fixture
def texts(repository: Path) -> ModuleType:
    path = repository / "environment" / "lmms_eval" / "p2r_lmms_texts.py"
    spec = importlib.util.spec_from_file_location("p2r_lmms_texts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("output", "reply"),
    [
        ("<observation>A. is red</observation> <think>so B</think><answer>B</answer>", "B"),
        ("<think>so B</think> The answer is B.", "B"),
        ("<observation>I see\na cat</observation> <think>hm", ""),
        ("(C)", "(C)"),
        ("<observation>o</observation> It rains for a while, and then the long day is over, but"
         " nobody there seems to have noticed anything of it.",
         "It rains for a while, and then the long day is over, but nobody there seems to have"
         " noticed anything of it."),
    ],
)  # fmt: skip
def test_a_task_sees_the_answer_alone(texts: ModuleType, output: str, reply: str) -> None:
    found = texts.bare_answer(output)
    assert found.strip() == reply or (reply == "" and found == "<think>hm")
    assert "observation" not in found
    assert texts.whole(output) == output


def test_options_are_found_and_the_tasks_own_instruction_is_left_out(texts: ModuleType) -> None:
    said: list[str] = []
    context = "<image>\nWhich one?\nLook twice.\n(A) red\n(B) blue\nAnswer with the letter only."
    question = texts.question_of(context, MEDIA, said.append)
    assert question.problem_type is ProblemType.MULTIPLE_CHOICE
    assert question.problem == "Which one?\nLook twice."
    assert question.options == ("(A) red", "(B) blue")
    assert len(said) == 1
    assert "Answer with the letter only." in said[0]
    prompt = task_prompt(question, "p2r").text
    assert prompt.startswith("Which one?\nLook twice.\n(A) red\n(B) blue\n")
    assert "letter only" not in prompt


@pytest.mark.parametrize(
    "context",
    [
        "What happens?\nAnswer briefly.",
        "What is in plan B?\nB. is the plan",
        "A. first\nB. second",  # nothing is asked
        "Why?\nB. wrong order\nA. of letters",
    ],
)
def test_a_text_without_lettered_options_is_asked_whole(texts: ModuleType, context: str) -> None:
    said: list[str] = []
    question = texts.question_of(context, MEDIA, said.append)
    assert question.problem_type is ProblemType.FREE_FORM
    assert question.problem == context
    assert not said
