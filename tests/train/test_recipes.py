"""Recipes are read, planned and started as they are; the papers' say what the papers say."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.tiny_rl import read_metrics, render_questions
from helpers.training_world import tiny_model_folder

from train.planning.job import rl_job
from train.planning.memory import memory
from train.planning.model_sizes import ModelSizes, model_sizes
from train.recipes import FOLDER, PAPERS, RECIPES, ZERO_3, Recipe
from train.rl_checks import Settings, resolve_settings
from train.rl_options import REFUSED, RlConfig
from train.training_options import read_training_command

NEEDED = ["--model", ".", "--questions", "q.json", "--media-root", "c", "--output-dir", "o"]


def recipe(name: str, *more: str, processes: int = 1) -> tuple[Any, Settings]:
    config, trl = read_training_command(
        RlConfig,
        "GRPOConfig",
        ["--config", str(FOLDER / name), *NEEDED, *more],
        prog="train.rl",
        description="",
        refused=REFUSED,
    )
    return config, resolve_settings(config, trl, num_processes=processes)


def test_appos_own_setting() -> None:
    """APPO, supplement B: DAPO, no fine-tuning, 0.9 accuracy + 0.1 format, clip-high 0.28."""
    config, settings = recipe("appo.yaml")
    assert settings.algo.name == "dapo+appo"
    assert settings.template.name == "think-answer"
    assert settings.rewards.weights == {"video-r1-accuracy": 0.9, "video-r1-format": 0.1}
    assert (config.judge, config.freeze_vision) == (None, True)
    assert (config.appo_score_tokens, config.appo_frames_per_rollout) == (15, 3)
    assert (config.appo_tokens_per_frame, config.appo_max_weight) == (128, 1.7)
    expected = {"beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.28, "loss_type": "dapo"}
    expected |= {"learning_rate": 1e-6, "max_completion_length": 512, "num_generations": 8}
    assert {name: settings.trl[name] for name in expected} == expected


def test_videop2rs_setting() -> None:
    """VideoP2R, supplement 8.1; its length reward fits into the completions."""
    config, settings = recipe("videop2r.yaml", "--judge", "claude:claude-haiku-5-5")
    assert settings.algo.name == "pa-grpo"
    assert (config.perception_tokens, config.reasoning_tokens) == ((128, 320), (320, 512))
    assert config.max_pixels == 128 * 28 * 28
    expected = {"beta": 0.04, "loss_type": "grpo", "top_p": 0.95, "max_steps": 1000}
    expected |= {"learning_rate": 1e-6, "max_completion_length": 1024, "max_grad_norm": 5.0}
    assert {name: settings.trl[name] for name in expected} == expected


@pytest.mark.parametrize("name", PAPERS)
def test_a_flag_wins_over_the_recipe(name: str) -> None:
    more = ["--judge", "oracle:0"] if name == "videop2r.yaml" else []
    _, settings = recipe(name, *more, "--learning-rate", "3e-6")
    assert settings.trl["learning_rate"] == 3e-6


def launch_settings(one: Recipe) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((FOLDER / one.launch).read_text("utf-8"))
    return settings


def name(one: Recipe) -> str:
    return one.file.removesuffix(".yaml")


def test_every_file_belongs_to_a_recipe() -> None:
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml")}
    launched = {each.launch for each in RECIPES} | {ZERO_3}
    assert files == {*PAPERS, *(each.file for each in RECIPES), *launched}


@pytest.mark.parametrize("one", RECIPES, ids=name)
def test_a_recipe_is_read_with_the_processes_of_its_launch_file(one: Recipe) -> None:
    """A step has 8 questions, on 16 GPUs one of each: rewards and frames are VideoP2R's."""
    launched = launch_settings(one)
    assert launched["num_processes"] == one.gpus
    assert launched["num_machines"] == max(1, one.gpus // 8)
    assert (launched["distributed_type"] == "FSDP") == (one.gpus > 1)
    judge = ("--judge", "claude:claude-haiku-5-5")
    config, settings = recipe(one.file, *judge, processes=one.gpus)
    assert settings.prompts_per_generation == max(8, one.gpus)
    papers, paper_settings = recipe("videop2r.yaml", *judge)
    assert settings.rewards == paper_settings.rewards
    for option in ("frames", "max_pixels", "perception_tokens", "reasoning_tokens", "length_bonus"):
        assert getattr(config, option) == getattr(papers, option), option
    for option in ("beta", "top_p", "max_completion_length", "lr_scheduler_type", "max_grad_norm"):
        assert settings.trl[option] == paper_settings.trl[option], option
    # An adapter learns at ten times the rate of the weights.
    assert settings.trl["learning_rate"] == (1e-5 if config.lora_rank else 1e-6)


@pytest.fixture(scope="module")
def sizes() -> dict[str, ModelSizes]:
    folder = Path(__file__).parents[1] / "reference" / "configurations"
    names = {
        "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2.5-vl-3b",
        "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl-7b",
        "Qwen/Qwen3-VL-8B-Instruct": "qwen3-vl-8b",
    }
    return {model: model_sizes(folder / name) for model, name in names.items()}


@pytest.mark.parametrize("one", RECIPES, ids=name)
def test_a_recipe_fits_on_its_gpus(one: Recipe, sizes: dict[str, ModelSizes]) -> None:
    """80 GB each, on the way of spreading that its launch file takes."""
    config, settings = recipe(one.file, "--judge", "oracle:0", processes=one.gpus)
    job = rl_job(
        sizes[one.model],
        config,
        settings.trl,
        beta=settings.algo.beta,
        text_tokens=330,
        processes=one.gpus,
    )
    wrapping = "fsdp2" if launch_settings(one)["distributed_type"] == "FSDP" else "ddp"
    assert memory(job, wrapping, one.gpus).peak < 80e9
    if one.gpus > 1:
        assert memory(job, "ddp", one.gpus).peak > 80e9  # why it is spread
    longer = replace(job, prompt=replace(job.prompt, tokens=2 * job.prompt.tokens))
    assert memory(longer, wrapping, one.gpus).peak < 80e9


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_questions(tmp_path_factory.mktemp("world"))


# One of each kind of launch and family; the others belong to the campaigns.
STARTED_FIRST = ("3b_1gpu", "7b_8gpu", "8b_16gpu")


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize(
    "one",
    [
        pytest.param(
            one, id=name(one), marks=[] if name(one) in STARTED_FIRST else [pytest.mark.campaign]
        )
        for one in RECIPES
    ],
)
def test_a_recipe_makes_a_step(one: Recipe, world: Path, tmp_path: Path, repository: Path) -> None:
    """With its launch file, for two CPUs where it is for several GPUs, on tiny weights of the same
    family and short completions. accelerate shards on CPUs only as helpers/sharded.py lets it; the
    program there asserts that it did."""
    family = "qwen3-vl" if "Qwen3" in one.model else "qwen2.5-vl"
    processes = min(2, one.gpus)
    launched = launch_settings(one) | {"mixed_precision": "no", "use_cpu": True}
    launched |= {"num_machines": 1, "num_processes": processes, "main_process_port": 0}
    launch = tmp_path / "cpu.yaml"
    launch.write_text(yaml.safe_dump(launched))
    words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launch)]
    sharded = str(repository / "tests" / "helpers" / "sharded_command.py")
    words += [sharded, "rl"] if processes > 1 else ["-m", "train.rl"]
    words += ["--config", str(FOLDER / one.file), "--model", str(tiny_model_folder(family))]
    words += ["--questions", str(world / "questions.json"), "--media-root", str(world)]
    words += ["--frame-cache", str(world / "cache"), "--judge", "oracle:0", "--use-cpu"]
    words += ["--max-steps", "1", "--output-dir", str(tmp_path / "out")]
    words += ["--ddp-backend", "gloo"] if processes > 1 else []
    words += ["--max-completion-length", "16", "--length-weight", "0"]
    words += ["--frames", "uniform:4", "--max-pixels", "3136"]
    paths = os.pathsep.join([str(repository), str(repository / "tests")])
    done = subprocess.run(
        words,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (metrics,) = read_metrics(tmp_path / "out" / "metrics.jsonl")[-1:]
    assert metrics["step"] == 1
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
