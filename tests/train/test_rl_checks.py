"""Bad settings of `train.rl` end before a model loads, in the sentence that helps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from helpers.training_world import question

from schemas.config import UsageError
from train.algorithms import ALGORITHMS
from train.appo import Strategy
from train.divergence import Divergence
from train.rl_checks import Settings, check_questions, settle
from train.rl_options import REFUSED, RlConfig

SHORT = {"length_weight": 0.0}


def config(algo: str = "pa-grpo", **more: Any) -> RlConfig:
    given = {"judge": "oracle:0", "model": "no/such/model", "questions": Path("q.json")}
    given |= {"media_root": Path("clips"), "output_dir": Path("out")}
    return RlConfig(**{"algo": algo, **given, **more})


def refused(options: RlConfig, processes: int = 1, **trl: Any) -> str:
    with pytest.raises(UsageError) as error:
        settle(options, trl, num_processes=processes)
    return str(error.value)


def test_a_group_of_one_has_nobody_to_compare_with() -> None:
    assert "a group needs at least 2; 8 is usual" in refused(config(), num_generations=1)


def test_a_batch_holds_whole_groups() -> None:
    words = refused(config(), num_generations=8, per_device_train_batch_size=20)
    assert "--per-device-train-batch-size 20 must be a multiple of --num-generations 8" in words
    assert "try 16" in words
    assert "try 8" in refused(config(), num_generations=8, per_device_train_batch_size=4)
    assert "multiple of the 32" in refused(
        config(), 2, per_device_train_batch_size=16, generation_batch_size=48
    )


def test_an_unknown_algorithm_is_answered_with_the_list() -> None:
    words = refused(config("ppo"))
    assert all(name in words for name in ALGORITHMS)
    assert "dapo+appo" in refused(config("appo"))


def test_the_algorithm_sets_what_the_user_does_not() -> None:
    settings = settle(config("pa-dapo", **SHORT), {"beta": 0.1}, num_processes=1)
    assert (settings.trl["loss_type"], settings.trl["epsilon_high"]) == ("dapo", 0.28)
    assert settings.trl["beta"] == 0.1
    assert settings.scale
    assert not settle(config("dr-grpo", **SHORT), {}, num_processes=1).scale
    assert settle(config("dr-grpo", **SHORT), {"scale_rewards": "group"}, num_processes=1).scale
    assert settings.group_size == settings.trl["per_device_train_batch_size"] == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (config(judge=None), "--algo pa-grpo rewards perception, which a judge does"),
        (config(template="think-answer", judge=None), "--template think-answer has no observation"),
        (config("grpo", template="grounding"), "--judge reads observations, but"),
        (config("grpo", group_reward="sum", judge=None), "--group-reward sum rewards perception"),
        (
            config("dapo+appo", appo_right_by="both", judge=None),
            "--appo-right-by both rewards perception",
        ),
        (config("dapo+appo", appo_detach=False), "--no-appo-detach cannot be given"),
        (config(lora_alpha=4, **SHORT), "need --lora-rank"),
        (config(published_rewards=("video-r1-accuracy",)), "write NAME=WEIGHT"),
        (config(published_rewards=("accuracy=1",)), "there are video-r1-accuracy"),
        (config(perception_tokens=(9, 3)), "--perception-tokens 9 3: give the least"),
    ],
)
def test_options_that_do_not_belong_together(options: RlConfig, words: str) -> None:
    assert words in refused(options, max_completion_length=2048)


def test_completions_can_hold_what_the_length_reward_pays_for() -> None:
    words = refused(config(), max_completion_length=768)
    assert "512 of reasoning and 320 of perception" in words
    assert "give at least 864" in words
    settle(config(), {"max_completion_length": 864}, num_processes=1)
    settle(config("grpo", judge=None), {"max_completion_length": 768}, num_processes=1)
    assert "at least 544" in refused(config("grpo", judge=None), max_completion_length=500)
    settle(config(**SHORT), {"max_completion_length": 64}, num_processes=1)
    published = config("dapo", judge=None, published_rewards=("video-r1-accuracy=0.9",))
    settle(published, {"max_completion_length": 64}, num_processes=1)


@pytest.mark.parametrize(
    ("trl", "words"),
    [
        ({"save_steps": 3, "num_iterations": 2}, "give a multiple of 2"),
        ({"save_steps": 2, "steps_per_generation": 4}, "give a multiple of 4"),
        ({"save_steps": 3, "steps_per_generation": 4, "gradient_accumulation_steps": 2}, "of 2"),
        (
            {"save_steps": 2, "gradient_accumulation_steps": 3, "steps_per_generation": 2},
            "generations would begin inside of optimizer steps",
        ),
        ({"save_steps": 0.4}, "give a whole number of optimizer steps"),
        ({"save_strategy": "best"}, "train.evaluate scores checkpoints"),
        ({"loss_type": "vespo"}, "assumes one advantage per rollout"),
        ({"scale_rewards": "batch"}, "not at all (none)"),
        ({"temperature": 0.0}, "--temperature must be above 0"),
        ({"generation_batch_size": 8, "steps_per_generation": 1}, "not both"),
    ],
)
def test_settings_of_trl_that_do_not_fit(trl: dict[str, Any], words: str) -> None:
    assert words in refused(config(**SHORT), **trl)


def test_checkpoints_at_the_end_of_generations_are_taken() -> None:
    for trl in ({"save_steps": 4, "num_iterations": 2}, {"save_strategy": "epoch"}):
        settle(config(**SHORT), trl, num_processes=1)
    accumulated = {"save_steps": 1, "gradient_accumulation_steps": 4, "steps_per_generation": 2}
    settle(config(**SHORT), accumulated, num_processes=1)


def settled(options: RlConfig) -> Settings:
    return settle(options, {"max_completion_length": 2048}, num_processes=1)


def test_appo_wants_videos() -> None:
    options = config("pa-grpo+appo")
    with pytest.raises(UsageError, match=r"none of the 2 questions .* --algo pa-grpo$"):
        check_questions([question("a.png"), question("b.png")], options, settled(options))
    mixed = [question("a.png"), question("b.mp4")]
    check_questions(mixed, options, settled(options))


def test_questions_fill_a_generation() -> None:
    options = config()
    settings = settle(
        options,
        {"max_completion_length": 2048, "gradient_accumulation_steps": 4},
        num_processes=2,
    )
    assert settings.prompts_per_generation == 8
    with pytest.raises(UsageError, match=r"3 usable questions, but .* for 8 at a time"):
        check_questions([question("a.mp4")] * 3, options, settings)


def test_grounding_wants_times() -> None:
    options = config("grpo", template="grounding", judge=None)
    with pytest.raises(UsageError, match="1 of 2 questions have no video"):
        check_questions([question("a.mp4"), question("b.png")], options, settled(options))
    with pytest.raises(UsageError, match=r"times are rewarded \(time-iou\), but none .* says when"):
        check_questions([question("a.mp4")], options, settled(options))
    timed = question("a.mp4", time_clues=((1.0, 2.0),))
    check_questions([timed], options, settled(options))
    whole = config("grpo", template="grounding", judge=None, integer_seconds=True)
    assert settled(whole).published == {
        "next-gqa-accuracy": 1.0,
        "next-gqa-format": 0.1,
        "next-gqa-tiou": 1.0,
    }


def test_choices_are_those_of_the_mathematics() -> None:
    fields = RlConfig.model_fields
    assert get_args(fields["appo_strategy"].annotation) == get_args(Strategy)
    assert get_args(fields["appo_divergence"].annotation) == get_args(Divergence)


@pytest.mark.process
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--algo", "ppo"], "unknown algorithm 'ppo'"),
        (["--algo", "grpo", "--use-vllm", "true"], REFUSED["use_vllm"]),
        (["--algo", "grpo", "--reward-weights", "1"], "--accuracy-weight"),
        (["--algo", "grpo", "--num-generations", "1"], "at least 2"),
        (["--algo", "pa-grpo", "--judge", "openai:x@http://127.0.0.1:9"], "cannot be reached"),
    ],
)
def test_the_command_ends_with_one_sentence_and_loads_nothing(
    tmp_path: Path, options: list[str], words: str
) -> None:
    """The model does not exist, and that is not what is told."""
    record = question("a.mp4").model_dump(mode="json", exclude={"row"})
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps(record | {"problem": f"Number {n}?"}) + "\n" for n in range(4))
    )
    command = [sys.executable, "-m", "train.rl", "--model", "no/such/model"]
    command += ["--questions", str(tmp_path / "q.jsonl"), "--media-root", str(tmp_path)]
    command += ["--output-dir", str(tmp_path / "out")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "no/such/model' cannot be loaded" not in done.stderr
