"""The published settings in `docs/recipes` are read as they are, and say what the papers say."""

from pathlib import Path

import pytest

from train.rl_checks import Settings, settle
from train.rl_options import REFUSED, RlConfig
from train.training_options import read_training_command

NEEDED = ["--model", "m", "--questions", "q.json", "--media-root", "c", "--output-dir", "o"]


def recipe(repository: Path, name: str, *more: str) -> tuple[RlConfig, Settings]:
    file = repository / "docs" / "recipes" / f"{name}.yaml"
    config, trl = read_training_command(
        RlConfig,
        "GRPOConfig",
        ["--config", str(file), *NEEDED, *more],
        prog="train.rl",
        description="",
        refused=REFUSED,
    )
    return config, settle(config, trl, num_processes=1)


def test_appos_own_setting(repository: Path) -> None:
    """APPO, supplement B: DAPO, no fine-tuning, 0.9 accuracy + 0.1 format, clip-high 0.28."""
    config, settings = recipe(repository, "appo")
    assert settings.algo.name == "dapo+appo"
    assert settings.template.name == "think-answer"
    assert settings.published == {"video-r1-accuracy": 0.9, "video-r1-format": 0.1}
    assert (config.judge, config.freeze_vision) == (None, True)
    assert (config.appo_score_tokens, config.appo_frames_per_rollout) == (15, 3)
    assert (config.appo_tokens_per_frame, config.appo_max_weight) == (128, 1.7)
    expected = {"beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.28, "loss_type": "dapo"}
    expected |= {"learning_rate": 1e-6, "max_completion_length": 512, "num_generations": 8}
    assert {name: settings.trl[name] for name in expected} == expected


def test_videop2rs_setting(repository: Path) -> None:
    """VideoP2R, supplement 8.1; its length reward fits into the completions."""
    config, settings = recipe(repository, "videop2r", "--judge", "claude:claude-haiku-5-5")
    assert settings.algo.name == "pa-grpo"
    assert (config.perception_tokens, config.reasoning_tokens) == ((128, 320), (320, 512))
    assert config.max_pixels == 128 * 28 * 28
    expected = {"beta": 0.04, "loss_type": "grpo", "top_p": 0.95, "max_steps": 1000}
    expected |= {"learning_rate": 1e-6, "max_completion_length": 1024, "max_grad_norm": 5.0}
    assert {name: settings.trl[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["appo", "videop2r"])
def test_a_flag_wins_over_the_recipe(repository: Path, name: str) -> None:
    more = ["--judge", "oracle:0"] if name == "videop2r" else []
    _, settings = recipe(repository, name, *more, "--learning-rate", "3e-6")
    assert settings.trl["learning_rate"] == 3e-6
