"""The learner's tokenizer knows the sandbox's wording, its vision tower learns to see."""

import random
from pathlib import Path
from typing import Any

import pytest

from sandbox import warm_up
from sandbox.models.learner_tokenizer import learner_tokenizer
from sandbox.models.tiny_models import LEARNER_SIZE, ModelFamily, save_tiny_model
from sandbox.teacher.traces import write_trace
from sandbox.world.balanced_draw import draw_question
from sandbox.world.clips import TINY
from sandbox.world.questions import question_row, video_question
from schemas.prompting import task_prompt
from schemas.traces import TEMPLATES
from train.modeling.loading import load_policy, load_processor
from train.rollouts.segments import TokenBytes

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return learner_tokenizer()


def test_prompts_and_traces_take_few_tokens_and_read_back(tokenizer: Any) -> None:
    rng = random.Random(3)
    token_bytes = TokenBytes(tokenizer)
    for name in TEMPLATES:
        for _ in range(20):
            drawn = draw_question(TINY, rng)
            row = question_row(drawn.query, drawn.value, drawn.clip, TINY, drawn.facts, 0)
            question = video_question(row)
            shown = {"duration_seconds": 4.0, "num_frames": 8} if name == "grounding" else {}
            prompt = task_prompt(question, name, **shown).text  # type: ignore[arg-type]
            trace = write_trace(
                name, drawn.query, drawn.facts, drawn.value, TINY, seconds=question.time_clues
            )
            for text, most in ((prompt, 32), (trace, 64)):
                ids = tokenizer(text, add_special_tokens=False).input_ids
                assert len(ids) <= most, tokenizer.convert_ids_to_tokens(ids)
                assert token_bytes.text(ids) == text


def test_every_tag_is_one_token_of_its_own(tokenizer: Any) -> None:
    trace = "<observation>a</observation> <think>b</think><answer>C</answer>"
    ids = tokenizer(trace, add_special_tokens=False).input_ids
    tokens = [tokenizer.decode([token]) for token in ids]
    assert tokens[:6] == ["<observation>", "a", "</observation>", " ", "<think>", "b"]
    assert tokens[6:] == ["</think>", "<answer>", "C", "</answer>"]


def test_other_text_can_be_written(tokenizer: Any) -> None:
    for text in ("a purple hexagon, 12.5 %", "中文 \U0001f600", "Base everything"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
def test_the_vision_tower_learns_to_see(
    tmp_path: Path, family: ModelFamily, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty steps teach colours and places; nothing but the tower and what it feeds changes."""
    random_model, warm = tmp_path / "random", tmp_path / "warm"
    save_tiny_model(family, random_model, size=LEARNER_SIZE, tokenizer=tokenizer)
    options = ["--model", str(random_model), "--out", str(warm), "--batch-size", "12"]
    assert warm_up.main([*options, "--steps", "24"]) == 0
    printed = capsys.readouterr().out
    shares = dict(
        part.rsplit(" ", 2)[0:2] for part in printed.split("clips: ")[1].split("\n")[0].split(", ")
    )
    # Guessing gives 25 % for colours and places.
    assert float(shares["colour"]) > 75
    assert float(shares["place"]) > 60
    before = load_policy(random_model).state_dict()
    after = load_policy(warm).state_dict()
    assert {name for name in before if not before[name].equal(after[name])} <= {
        name for name in before if ".visual." in name
    }
    load_processor(warm)
