"""A model family of the user's own: models under another `model_type`, from a file of theirs."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_rl import run_rl
from helpers.training_world import question, small_world, tiny_model_folder

from cli.plugins import load_plugin
from media.sampling import FrameSpec
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.modeling.families import find_family
from train.modeling.loading import load_policy, load_processor, processor_family
from train.modeling.packed_forward import PromptGroup, group_logprobs, why_not_shared
from train.modeling.vision_cache import encode_media

# Numbers cells as its model does, not by the released weights of Qwen2.5-VL, and has its own
# default for LoRA.
LENS = """
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from train.modeling.families import ModelFamily, register_family


class LensConfig(Qwen2_5_VLConfig):
    model_type = "lens_vl"


class LensForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    config_class = LensConfig


def seconds_only(prompt, seconds_per_cell, merge_size, config):
    import torch

    assert config.model_type == "lens_vl"
    return {"second_per_grid_ts": torch.tensor(seconds_per_cell)} if seconds_per_cell else {}


AutoConfig.register("lens_vl", LensConfig)
AutoModelForImageTextToText.register(LensConfig, LensForConditionalGeneration)
register_family(
    ModelFamily(
        name="Lens-VL",
        model_types=("lens_vl",),
        time_inputs=seconds_only,
        lora_targets=("q_proj",),
    )
)
"""


@dataclass(frozen=True)
class Lens:
    """A plugin, a checkpoint of its family, and a dataset."""

    plugin: Path
    model: Path
    media: Path
    dataset: Path


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Lens:
    folder = tmp_path_factory.mktemp("lens")
    plugin = folder / "lens.py"
    plugin.write_text(LENS)
    module: Any = load_plugin(str(plugin))
    source = load_policy(tiny_model_folder("qwen2.5-vl"))
    settings = source.config.to_dict()
    del settings["model_type"]
    model = module.LensForConditionalGeneration(module.LensConfig(**settings))
    model.load_state_dict(source.state_dict())
    model.generation_config = source.generation_config
    model.save_pretrained(folder / "model")
    load_processor(tiny_model_folder("qwen2.5-vl")).save_pretrained(folder / "model")
    return Lens(plugin, folder / "model", *small_world(folder, num_rows=4))


def test_a_shared_prefix_pass_equals_the_plain_one(lens: Lens) -> None:
    model, processor = load_policy(lens.model), load_processor(lens.model)
    assert processor_family(processor).name == "Lens-VL"
    assert why_not_shared(model) is None
    with FrameLoader(lens.media, spec=FrameSpec("uniform:6"), cache_dir=None) as loader:
        prompt = VideoInputs(processor, loader, TEMPLATES["p2r"]).prompt(question("clip0.mp4"))
    assert "second_per_grid_ts" in prompt
    assert "position_ids" not in prompt
    draw = torch.Generator().manual_seed(0)
    completions = [torch.randint(50, (length,), generator=draw) for length in (6, 3, 9)]
    with torch.no_grad():
        features = encode_media(model, prompt)
        (shared,), (plain,), (cached,) = (
            group_logprobs(model, [group], share_prompts=share, frame_layers=2)
            for group, share in (
                (PromptGroup(prompt, completions), True),
                (PromptGroup(prompt, completions), False),
                (PromptGroup(prompt, completions, features), True),
            )
        )
    # float32 through two layers in another order of sums: 1e-5
    for ours in (shared, cached):
        torch.testing.assert_close(ours.logprobs, plain.logprobs, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.frame_attention, plain.frame_attention, rtol=0, atol=1e-5)


def fine_tune(
    lens: Lens, out: Path, repository: Path, *more: str
) -> "subprocess.CompletedProcess[str]":
    words = [
        sys.executable,
        "-m",
        "train.sft",
        "--model",
        str(lens.model),
        "--media-root",
        str(lens.media),
    ]
    words += ["--dataset", str(lens.dataset), "--output-dir", str(out), "--held-out-rows", "0"]
    words += ["--max-steps", "1", "--batch-size", "2", "--lora-rank", "2", "--frames", "uniform:4"]
    return run_rl([*words, *more], out.parent, repository)


@pytest.mark.heavy
@pytest.mark.slow
def test_a_command_trains_it_by_the_record_in_the_plugin(
    lens: Lens, tmp_path: Path, repository: Path
) -> None:
    done = fine_tune(lens, tmp_path / "out", repository, "--plugin", str(lens.plugin))
    assert done.returncode == 0, done.stderr[-3000:]
    adapter = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert adapter["target_modules"] == ["q_proj"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "lens_vl"


@pytest.mark.heavy
@pytest.mark.slow
def test_without_the_plugin_its_models_are_refused(
    lens: Lens, tmp_path: Path, repository: Path
) -> None:
    done = fine_tune(lens, tmp_path / "out", repository)
    assert done.returncode == 2
    assert "lens_vl" in done.stderr
    assert find_family("lens_vl") is not None, "this process has the plugin"
