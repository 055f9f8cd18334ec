"""Task prompts: the right words, filled in one pass, named by their files."""

import re
from importlib import resources
from pathlib import Path

import pytest

from schemas.prompting import (
    question_text,
    save_prompt_files,
    task_prompt,
    template_of_model,
)
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.traces import TEMPLATES


def question(
    problem: str = "What falls?",
    options: tuple[str, ...] = ("A. a ball", "B. a cup"),
    **fields: object,
) -> VideoQuestion:
    kind = ProblemType.MULTIPLE_CHOICE if options else ProblemType.FREE_FORM
    values: dict[str, object] = {
        "problem": problem,
        "options": options,
        "solution": "A",
        "media": (MediaRef(kind="video", path="a.mp4"),),
        "problem_type": kind,
    }
    return VideoQuestion.model_validate({**values, **fields})


def test_think_answer_is_the_published_string_plus_the_answer_form() -> None:
    prompt = task_prompt(question("Why?", ()), "think-answer")
    assert prompt.text == (
        "Why? Output the thinking process in <think> </think> and final answer in <answer>"
        " </answer> tags, i.e., <think> reasoning process here </think><answer> answer here"
        " </answer>. Please write your answer as plain text within the <answer> </answer> tags."
    )


def test_options_stand_on_lines_of_their_own_before_the_instruction() -> None:
    text = task_prompt(question(), "think-answer").text
    assert text.startswith("What falls?\nA. a ball\nB. a cup\n Output the thinking process")


def test_grounding_is_the_published_string_with_true_duration_and_frames() -> None:
    prompt = task_prompt(question(), "grounding", duration_seconds=90.04, num_frames=45)
    assert prompt.text == (
        "\nThe video is 90 seconds long, with 45 frames evenly sampled from it. \n"
        "Based on the video content, think about the question deeply, select the correct option,"
        " and provide ONE or MORE time periods in the video where the clues corresponding to the"
        " correct option occur."
        "\nQuestion: What falls?\nA. a ball\nB. a cup\n \nOutput the thinking process in <think>"
        " </think> tags, final answer in <answer> </answer> tags and time clues in <time> </time>"
        " tags, i.e., <think> reasoning process here </think> <answer> answer here </answer> <time>"
        " 8.4 to 12.5, 25 to 30.2 </time>\nPlease write only the letter of the option you choose"
        " (e.g., A, B, C, D) within the <answer> </answer> tags."
    )


def test_grounding_speaks_of_no_option_where_there_is_none() -> None:
    text = task_prompt(
        question("When?", ()), "grounding", duration_seconds=10.33, num_frames=5
    ).text
    assert "is 10.3 seconds long, with 5 frames" in text
    assert "option" not in text


@pytest.mark.parametrize(
    "given",
    [{}, {"duration_seconds": 9.0}, {"num_frames": 4}, {"duration_seconds": 0.0, "num_frames": 1}],
)
def test_grounding_without_a_true_duration_and_frame_count_is_refused(
    given: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match="duration"):
        task_prompt(question(), "grounding", **given)  # type: ignore[arg-type]


def test_p2r_asks_for_what_the_method_describes() -> None:
    text = task_prompt(question()).text
    assert text.startswith("What falls?\nA. a ball\nB. a cup\n")
    landmarks = [
        "visual content",
        "three parts",
        "do not stop after the first part",
        "Visual Observation",
        "one paragraph",
        '"Based on the question, I need to notice ..."',
        "<observation> </observation>",
        "Reasoning",
        '"Based on the observations, ..."',
        "let me think",
        "hmm",
        "wait a second",
        "Does that make sense?",
        "Let me double-check...",
        "<think> </think>",
        "Final Answer",
        "concise and specific",
        "<answer> </answer>",
    ]
    places = [text.find(landmark) for landmark in landmarks]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_every_tag_of_a_template_is_named_in_its_prompt(template: str) -> None:
    text = task_prompt(question(), template, duration_seconds=9.0, num_frames=4).text
    for segment in TEMPLATES[template].segments:
        assert segment.opening in text
        assert segment.closing in text


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@pytest.mark.parametrize("problem_type", list(ProblemType))
def test_every_problem_type_ends_with_its_answer_form(
    template: str, problem_type: ProblemType
) -> None:
    has_options = problem_type is ProblemType.MULTIPLE_CHOICE
    asked = question(options=("A. a", "B. b") if has_options else (), problem_type=problem_type)
    text = task_prompt(asked, template, duration_seconds=9.0, num_frames=4).text
    last = {
        ProblemType.MULTIPLE_CHOICE: "letter of the option",
        ProblemType.NUMERICAL: "only the number",
        ProblemType.OCR: "transcribe the text exactly",
        ProblemType.FREE_FORM: "as plain text",
        ProblemType.REGRESSION: "only the number",
        ProblemType.TEMPORAL_GROUNDING: "as start to end",
    }[problem_type]
    sentence = text[text.rindex("Please ") :]
    assert last in sentence
    assert sentence.endswith("within the <answer> </answer> tags.")
    assert re.search(r"\{[a-z_]+\}", text) is None


def test_braces_in_a_question_pull_nothing_in() -> None:
    tricky = question(
        "What do {question} and {answer_form} and {{0}} and \\1 mean?",
        ("A. {options}", "B. {duration}"),
    )
    text = task_prompt(tricky).text
    assert text.startswith(
        "What do {question} and {answer_form} and {{0}} and \\1 mean?\n"
        "A. {options}\nB. {duration}\n"
    )
    assert text.count("What do") == 1


def test_the_prompt_id_names_the_files_and_not_the_question() -> None:
    ids = {
        name: task_prompt(question(), name, duration_seconds=9.0, num_frames=4).prompt_id
        for name in TEMPLATES
    }
    assert len(set(ids.values())) == len(TEMPLATES)
    assert task_prompt(question("Other?", ()), "p2r").prompt_id == ids["p2r"]
    assert all(re.fullmatch(r"prompt-[0-9a-f]{32}", prompt_id) for prompt_id in ids.values())


def test_an_unknown_template_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'p3r': expected one of p2r, think-answer, grounding"):
        task_prompt(question(), "p3r")


def test_the_shipped_files_hold_only_known_placeholders() -> None:
    known = {"question", "answer_form", "decide", "decision", "duration", "num_frames"}
    for name in TEMPLATES:
        text = (resources.files("schemas.prompts") / f"{name}.md").read_text()
        assert set(re.findall(r"\{(\w+)\}", text)) <= known


def test_question_text_without_options_is_the_problem() -> None:
    assert question_text(question("Why?", ())) == "Why?"


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_models_folder_tells_which_template_it_was_taught(name: str, tmp_path: Path) -> None:
    assert template_of_model(tmp_path) is None
    save_prompt_files(tmp_path, name)
    assert template_of_model(tmp_path) == name
    (tmp_path / "prompt.md").write_text("Answer.")
    with pytest.raises(ValueError, match=r"prompt\.md is the prompt of no template"):
        template_of_model(tmp_path)
