"""What a training command refuses when it has opened its model."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.training_world import small_world, tiny_model_folder
from transformers import AddedToken, AutoTokenizer

from cli.config import UsageError
from train import rl, sft

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has more tokens than it has embeddings, and writes one of them."""
    folder = tmp_path_factory.mktemp("foreign") / "model"
    shutil.copytree(tiny_model_folder("qwen2.5-vl"), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(f"<|new {n}|>", special=True) for n in range(4000)])
    tokenizer.save_pretrained(folder)
    template = (folder / "chat_template.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text("<|new 3999|>" + template, "utf-8")
    return folder


@pytest.mark.parametrize("command", ["sft", "rl"])
def test_a_processor_of_another_model_is_refused(
    command: str, foreign: Path, tmp_path: Path
) -> None:
    media, dataset = small_world(tmp_path, num_rows=4)
    out = tmp_path / "out"
    words = ["--model", str(foreign), "--media-root", str(media), "--output-dir", str(out)]
    words += ["--frame-cache", str(tmp_path / "cache")]
    if command == "sft":
        words += ["--dataset", str(dataset), "--held-out-rows", "0"]
    else:
        asked = {"problem": "What?", "options": ["A. red", "B. blue"], "solution": "A"}
        asked |= {"problem_type": "multiple choice", "path": "clip0.mp4", "data_type": "video"}
        (media / "questions.json").write_text(json.dumps([asked]), "utf-8")
        words += ["--algo", "grpo", "--questions", str(media / "questions.json")]
    with pytest.raises(UsageError, match=r"knows [\d,]+ tokens, .*the tokenizer that belongs"):
        (sft if command == "sft" else rl).main(words)
