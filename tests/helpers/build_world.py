"""A small media root, a question file over it, and the teacher and judge that the model server
plays.

What a question's traces and verdicts look like follows from its number alone, so that two builds of
the same questions must give the same dataset, whatever happened on the way.
"""

import json
import re
from pathlib import Path

import numpy as np
from helpers.media_clips import make_clip
from PIL import Image
from servers.replies import Prompt

NUM_STILLS, NUM_CLIPS = 8, 4
_NUMBER = re.compile(r"Question (\d+):")
_LETTERS = "ABCD"


def fate(number: int) -> str:
    """What becomes of question `number`: accepted, or the reason of its rejection."""
    bucket = number * 7919 % 100
    for upper, name in (
        (66, "accepted"),
        (76, "low_score"),
        (82, "malformed_trace"),
        (88, "answer_leak"),
        (96, "insufficient"),
        (100, "unscored"),
    ):
        if bucket < upper:
            return name
    raise AssertionError(number)


def gold(number: int) -> tuple[str, str, list[str]]:
    """Problem type, gold answer and options of question `number`."""
    kind = number % 5
    if kind == 0:
        options = [f"{letter}. the {word}" for letter, word in zip(_LETTERS, _WORDS, strict=True)]
        return "multiple choice", _LETTERS[number % 4], options
    if kind == 1:
        return "numerical", str(number), []
    if kind == 2:
        return "OCR", f"SIGN {number} AHEAD", []
    if kind == 3:
        return "free-form", f"a red ball number {number} rolls over a blue table", []
    return "regression", f"{number + 0.5}", []


_WORDS = ("ball", "table", "lamp", "chair")


def brain(prompt: Prompt) -> str:
    """Teacher for prompts with images, else text reader or judge."""
    match = _NUMBER.search(prompt.text)
    if "the one word Yes" in prompt.text:
        return "Yes."
    assert match is not None, prompt.text
    number = int(match.group(1))
    if "not shown to you" in prompt.text:
        return reading(number, has_observation="<given_observation>" in prompt.text)
    return trace(number) if prompt.images else judgement(number)


def trace(number: int) -> str:
    """What the teacher writes about question `number`."""
    answer, verdict = gold(number)[1], fate(number)
    if verdict == "low_score":
        answer = "none of these, it cannot be told"
    seen = f"Based on the question, I need to notice the thing. At 1 s, object {number} rolls by."
    if verdict == "answer_leak":
        seen += f" So the answer is {answer}."
    reasoning = "Based on the observations, let me think. It fits."
    if verdict == "malformed_trace":
        return f"<observation>{seen}</observation> {reasoning} <answer>{answer}</answer>"
    return f"<observation>{seen}</observation> <think>{reasoning}</think><answer>{answer}</answer>"


def judgement(number: int) -> str:
    """What the judge says about the observation of question `number`."""
    verdict = fate(number)
    if verdict == "unscored":
        return "I would rather not say."
    word = "No" if verdict == "insufficient" else "Yes"
    return f"The observation was compared with the answer. <judgement>{word}</judgement>"


def is_known_blind(number: int) -> bool:
    """Whether a text reader answers question `number` without its video."""
    return number * 31 % 10 < 3


def reading(number: int, *, has_observation: bool) -> str:
    """What a text reader answers: it knows some questions, and believes each good observation."""
    knows = is_known_blind(number) or (has_observation and fate(number) != "insufficient")
    kind, answer, options = gold(number)
    if kind == "multiple choice":
        answer = options[_LETTERS.index(answer)].partition(". ")[2]
    return f"<think>Let me see.</think><answer>{answer if knows else 'no idea'}</answer>"


def make_world(folder: Path, num_questions: int) -> Path:
    """Write stills, clips and `questions.json` under `folder`; returns the question file."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(NUM_STILLS):
        pixels = np.full((90, 160, 3), 20 * index, np.uint8)
        pixels[20:40, 10 * index : 10 * index + 30] = (220, 60, 40)
        Image.fromarray(pixels).save(folder / f"still_{index}.png")
    for index in range(NUM_CLIPS):
        write_clip(folder / f"clip_{index}.mp4", seed=index)
    rows = []
    for number in range(num_questions):
        problem_type, answer, options = gold(number)
        is_clip = number % 3 == 0
        path = f"clip_{number % NUM_CLIPS}.mp4" if is_clip else f"still_{number % NUM_STILLS}.png"
        rows.append(
            {
                "problem_id": number,
                "problem": f"Question {number}: what is to be seen?",
                "data_type": "video" if is_clip else "image",
                "problem_type": problem_type,
                "options": options,
                "solution": f"<answer>{answer}</answer>",
                "path": path,
                "data_source": f"scripted/{number % 2}",
            }
        )
    path = folder / "questions.json"
    path.write_text(json.dumps(rows))
    return path


def write_clip(path: Path, *, seed: int, num_frames: int = 24, rate: int = 8) -> None:
    """A short h264 file: a bar that moves over a grey ground."""
    pictures = np.full((num_frames, 64, 96, 3), 90 + 10 * seed, np.uint8)
    for index, picture in enumerate(pictures):
        picture[:, 4 * index % 96 : 4 * index % 96 + 6] = (240, 200, 20)
    make_clip(path, pictures=list(pictures), rate=rate)
