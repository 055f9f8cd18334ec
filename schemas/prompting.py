"""The task prompt: one file per trace template serves generation, SFT, RL and evaluation.

The files are `schemas/prompts/<template>.md`; `answer_forms.toml` has, for each problem type, how
the answer is written. A `prompt_id` names the bytes of these two files, not one question's text.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from schemas.questions import ProblemType, VideoQuestion
from schemas.serialization import content_id
from schemas.traces import TEMPLATES

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
# Marks of turns that chat templates write as plain words, not as special tokens of their tokenizer.
_WRITTEN_MARKERS = re.compile(
    r"\[/?[A-Z_]{2,}\]|<</?[A-Z]+>>|<(?:start|end)_of_turn>"
    r"|<[|\N{FULLWIDTH VERTICAL LINE}][^<>|\n]{1,40}[|\N{FULLWIDTH VERTICAL LINE}]>"
)


@dataclass(frozen=True)
class TaskPrompt:
    """The prompt for a model, and the id of the prompt files that it was made from."""

    text: str
    prompt_id: str


@dataclass(frozen=True)
class _PromptFiles:
    template: str
    answer_forms: dict[str, str]
    prompt_id: str


@cache
def _prompt_files(template_name: str) -> _PromptFiles:
    if template_name not in TEMPLATES:
        raise ValueError(
            f"unknown template {template_name!r}: expected one of {', '.join(TEMPLATES)}"
        )
    folder = resources.files("schemas.prompts")
    template = (folder / f"{template_name}.md").read_bytes().decode()
    answer_forms = (folder / "answer_forms.toml").read_bytes().decode()
    return _PromptFiles(
        template.removesuffix("\n"),
        tomllib.loads(answer_forms),
        content_id("prompt", {"template": template, "answer_forms": answer_forms}),
    )


def prompt_files(template_name: str) -> dict[str, str]:
    """The prompt as files to keep beside a model: `prompt.md` with its placeholders in braces, and
    `answer_forms.toml`, the {answer_form} of each problem type.
    """
    answer_forms = (resources.files("schemas.prompts") / "answer_forms.toml").read_bytes().decode()
    return {
        "prompt.md": _prompt_files(template_name).template,
        "answer_forms.toml": answer_forms,
    }


def save_prompt_files(folder: Path, template_name: str) -> None:
    """Write `prompt_files` into a model's folder: `template_of_model` reads them back."""
    for name, text in prompt_files(template_name).items():
        (folder / name).write_text(text, encoding="utf-8")


def template_of_model(folder: Path) -> str | None:
    """The template whose prompt a model's folder keeps (`prompt_files`); None where it keeps none.

    Raises ValueError for a prompt that is no template's.
    """
    file = folder / "prompt.md"
    if not file.is_file():
        return None
    kept = file.read_text(encoding="utf-8")
    for name in TEMPLATES:
        if kept == _prompt_files(name).template:
            return name
    raise ValueError(
        f"{file} is the prompt of no template ({', '.join(TEMPLATES)}); say with --template which"
        " one the model is to be asked for"
    )


def task_prompt(
    question: VideoQuestion,
    template_name: str = "p2r",
    *,
    duration_seconds: float | None = None,
    num_frames: int | None = None,
) -> TaskPrompt:
    """The prompt for `question`. Templates that state duration and frame count need both given.

    All placeholders are filled in one pass: braces in a question are text and pull nothing in.
    """
    files = _prompt_files(template_name)
    has_options = question.problem_type is ProblemType.MULTIPLE_CHOICE
    values: dict[str, str | None] = {
        "question": question_text(question),
        "answer_form": files.answer_forms[question.problem_type.value],
        "decide": "select the correct option" if has_options else "answer it",
        "decision": "the correct option" if has_options else "your answer",
        "duration": None if duration_seconds is None else _seconds(duration_seconds),
        "num_frames": None if num_frames is None else str(num_frames),
    }

    def fill(placeholder: re.Match[str]) -> str:
        value = values[placeholder[1]]
        if value is None:
            raise ValueError(
                f"the {template_name!r} prompt states the clip's duration and number of frames:"
                f" got {duration_seconds = }, {num_frames = }; give both"
            )
        return value

    return TaskPrompt(_PLACEHOLDER.sub(fill, files.template), files.prompt_id)


def turn_markers(tokenizer: Any, chat: str = "") -> "re.Pattern[str]":
    """What text must not hold, for it would end a turn or place a medium: all special tokens of a
    tokenizer, named or not, and the marks in `chat`, which is a chat as the template writes it.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    markers = {str(token) for token in (*tokenizer.all_special_tokens, *_special(added))}
    markers |= set(_WRITTEN_MARKERS.findall(chat))
    longest_first = sorted(markers - {""}, key=lambda marker: (-len(marker), marker))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _special(added: Iterable[Any]) -> Iterator[Any]:
    return (token for token in added if getattr(token, "special", False))


def spelled_apart(text: str, markers: "re.Pattern[str]") -> str:
    """`text` with a blank inside every marker: data cannot end a turn or add a video."""
    return markers.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text)


def question_text(question: VideoQuestion) -> str:
    """The problem; with options, each on a line of its own and a line feed after the last."""
    if not question.options:
        return question.problem
    return "\n".join([question.problem, *question.options, ""])


def _seconds(duration: float) -> str:
    """90.0 -> `90`, 10.3333 -> `10.3`: tenths are finer than any gap between sampled frames."""
    if not 0 < duration < float("inf"):
        raise ValueError(f"a clip's duration must be a positive number of seconds, got {duration}")
    return f"{max(duration, 0.1):.1f}".removesuffix(".0")
