"""Tiny models load through the Auto classes, repeat by seed, and read what they are given."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from sandbox.models.tiny_models import (
    ModelFamily,
    TinySize,
    build_llama,
    build_qwen3_vl,
    save_tiny_model,
)
from sandbox.models.tiny_tokenizer import build_tokenizer
from sandbox.tiny_model import main

pytestmark = pytest.mark.heavy

PROCESSORS = {
    "qwen2.5-vl": "Qwen2_5_VLProcessor",
    "qwen3-vl": "Qwen3VLProcessor",
    "qwen3.5": "Qwen3VLProcessor",
}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_same_seed_writes_the_same_files_in_another_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sandbox.tiny_model", "--family", "llama"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "one")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "nonsense" in done.stdout
    main(["--family", "llama", "--output-dir", str(tmp_path / "two")])
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("family", ["llama", *PROCESSORS])
def test_another_seed_changes_the_weights_and_nothing_else(
    tmp_path: Path, family: ModelFamily
) -> None:
    first = contents(save_tiny_model(family, tmp_path / "one", seed=0))
    again = contents(save_tiny_model(family, tmp_path / "two", seed=0))
    other = contents(save_tiny_model(family, tmp_path / "three", seed=1))
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


def test_building_a_model_leaves_the_global_random_state_alone() -> None:
    tokenizer = build_tokenizer()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_llama(tokenizer)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "text", ["plain words", "A) 42.5 %", "中文 \u00e9\U0001f600", "a\n\n  b\t"]
)
def test_every_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_prompts_of_the_product_take_few_tokens() -> None:
    tokenizer = build_tokenizer()
    text = "<observation> a red circle moves left </observation> <think> yes </think>"
    assert len(tokenizer(text).input_ids) < len(text) / 2.5


def test_the_llama_loads_and_its_template_marks_the_assistants_tokens(tmp_path: Path) -> None:
    folder = save_tiny_model("llama", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "red?"}, {"role": "assistant", "content": "yes"}]
    encoded = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    kept = [
        token
        for token, is_kept in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if is_kept
    ]
    assert tokenizer.decode(kept) == "yes<|im_end|>\n"
    model = AutoModelForCausalLM.from_pretrained(folder)
    logits = model(input_ids=torch.tensor([encoded["input_ids"]])).logits
    assert logits.isfinite().all()
    assert logits.argmax(-1).unique().numel() > 3


@pytest.mark.parametrize("family", PROCESSORS)
def test_the_video_model_sees_images_and_videos_and_writes(
    tmp_path: Path, family: ModelFamily
) -> None:
    folder = save_tiny_model(family, tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor).__name__ == PROCESSORS[family]
    noise = np.random.default_rng(0)
    side = 28 if family == "qwen2.5-vl" else 32

    def inputs(medium: str) -> Any:
        content = [{"type": medium}, {"type": "text", "text": "What moves?"}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        pixels = noise.integers(0, 255, (4, 2 * side, 3 * side, 3), dtype=np.uint8)
        if medium == "image":
            return processor(
                text=[prompt], images=[Image.fromarray(pixels[0])], return_tensors="pt"
            )
        return processor(
            text=[prompt],
            videos=[torch.from_numpy(pixels).permute(0, 3, 1, 2)],
            video_metadata=[{"fps": 2, "frames_indices": [0, 1, 2, 3], "total_num_frames": 4}],
            do_sample_frames=False,
            return_tensors="pt",
        )

    for medium in ("image", "video"):
        first, second = inputs(medium), inputs(medium)
        # 2 x 3 tokens a picture; two frames make one temporal cell
        token = getattr(model.config, f"{medium}_token_id")
        assert (first["input_ids"] == token).sum() == (6 if medium == "image" else 12)
        with torch.inference_mode():
            logits = [model(**given).logits[0, -1] for given in (first, second)]
            written = model.generate(**first, max_new_tokens=4, do_sample=False)
        assert not torch.allclose(*logits, atol=1e-3)
        assert written.shape[1] > first["input_ids"].shape[1]


def test_the_deepstack_of_qwen3_vl_matters(tmp_path: Path) -> None:
    """Without its merger's output the text layers see something else: the deepstack is wired."""
    model = build_qwen3_vl(build_tokenizer())
    pixels = torch.rand(2 * 4, 3 * 2 * 16 * 16, generator=torch.Generator().manual_seed(0))
    grid = torch.tensor([[2, 2, 2]])
    output = model.model.get_video_features(pixels, grid, return_dict=True)
    (layer,) = output.deepstack_features
    # One tensor, or one for each medium (transformers 5.24).
    features = layer if isinstance(layer, torch.Tensor) else torch.cat(layer)
    assert features.shape == (2, model.config.text_config.hidden_size)
    assert features.abs().max() > 1e-3


def test_the_learner_has_about_a_million_weights_and_a_small_vocabulary(tmp_path: Path) -> None:
    options = ["--family", "qwen2.5-vl", "--model-preset", "learner"]
    assert main([*options, "--out", str(tmp_path)]) == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert 0.8e6 < sum(weights.numel() for weights in model.parameters()) < 1.2e6
    assert 400 < len(AutoProcessor.from_pretrained(tmp_path).tokenizer) < 800
    assert model.config.text_config.rope_parameters["rope_theta"] == 100.0


def test_the_learners_size_cannot_be_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--model-preset", "learner", "--width", "64", "--out", str(tmp_path)])
    assert caught.value.code == 2
    assert "leave out --width" in capsys.readouterr().err


def test_a_width_that_rotary_positions_cannot_split_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8 times the number of heads"):
        TinySize(width=40)


def test_a_wrong_width_on_the_command_line_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--out", str(tmp_path), "--width", "40"])
    assert caught.value.code == 2
    assert "width" in capsys.readouterr().err
