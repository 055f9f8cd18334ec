"""An annotation layout of the user's own, from a file that the product knows nothing of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PLUGIN = """
from schemas.annotations.fields import letter_of, lettered, strings, text_field
from schemas.annotations.formats import AnnotationFormat, every_file, register_format
from schemas.questions import ProblemType


def quiz(record):
    options = lettered(strings(record, "choices"), "choices")
    return {
        "problem": text_field(record, "ask"),
        "options": options.lines,
        "solution": letter_of(options, text_field(record, "reply"), "reply"),
        "media": (("image", text_field(record, "picture")),),
        "problem_type": ProblemType.MULTIPLE_CHOICE,
    }


register_format(
    AnnotationFormat("quiz", "our quiz", lambda record: "ask" in record, every_file(quiz))
)
"""


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    (tmp_path / "quiz_layout.py").write_text(PLUGIN)
    (tmp_path / "media").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "media" / "a.png")
    rows = [
        {"ask": "Which colour?", "choices": ["red", "blue"], "reply": "red", "picture": "a.png"},
        {"ask": "Which form?", "choices": ["round", "square"], "reply": "flat", "picture": "a.png"},
        {"ask": "Which size?", "choices": ["small", "large"], "reply": "B", "picture": "gone.png"},
    ]
    (tmp_path / "quiz.json").write_text(json.dumps(rows))
    return tmp_path


def check(folder: Path, repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`pipeline.build_cot --check` as a user runs it, from a folder of the user's own."""
    command = ["-m", "pipeline.build_cot", "--check", "--questions", "quiz.json"]
    return subprocess.run(
        [sys.executable, *command, "--media-root", "media", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.heavy
@pytest.mark.parametrize("format", ["quiz", "auto"])
def test_a_layout_of_a_plugin_is_read(format: str, quiz: Path, repository: Path) -> None:
    done = check(quiz, repository, "--plugin", "quiz_layout.py", "--format", format)
    assert done.returncode in (0, 1), done.stderr
    assert "3 questions read, 2 unusable" in done.stdout
    assert "'flat'" in done.stdout
    assert "gone.png" in done.stdout


@pytest.mark.heavy
def test_without_the_plugin_the_layout_is_unknown(quiz: Path, repository: Path) -> None:
    done = check(quiz, repository, "--format", "quiz")
    assert done.returncode == 2
    assert "--format: expected one of auto, video-r1" in done.stderr
    assert check(quiz, repository).returncode == 2


@pytest.mark.heavy
def test_help_lists_the_layout_of_a_plugin(quiz: Path, repository: Path) -> None:
    done = check(quiz, repository, "--plugin", "quiz_layout.py", "--help")
    assert ",quiz}" in "".join(done.stdout.split())
    assert "quiz: our quiz" in " ".join(done.stdout.split())
