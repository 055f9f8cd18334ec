"""Bad settings of `train.rl` end before a model loads, in the sentence that helps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from helpers.training_world import question
from pydantic import ValidationError, create_model

from cli.config import Config, UsageError
from train.algorithms.appo import Strategy
from train.algorithms.appo_weighting import AppoOptions
from train.algorithms.divergence import Divergence
from train.algorithms.registry import ALGORITHMS, TOKEN_WEIGHTINGS
from train.algorithms.token_weighting import TokenWeighting
from train.rl import read_options
from train.rl_checks import Settings, check_questions, resolve_settings
from train.rl_options import REFUSED, RlConfig, RlOptions, rl_config_class

SHORT = {"length_weight": 0.0}


def config(algo: str = "pa-grpo", **more: Any) -> RlOptions:
    given = {"judge": "oracle:0", "model": "no/such/model", "questions": Path("q.json")}
    given |= {"media_root": Path("clips"), "output_dir": Path("out")}
    return RlConfig(**{"algo": algo, **given, **more})


def refused(options: RlOptions, processes: int = 1, **trl: Any) -> str:
    with pytest.raises(UsageError) as error:
        resolve_settings(options, trl, num_processes=processes)
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
    settings = resolve_settings(config("pa-dapo", **SHORT), {"beta": 0.1}, num_processes=1)
    assert (settings.trl["loss_type"], settings.trl["epsilon_high"]) == ("dapo", 0.28)
    assert settings.trl["beta"] == 0.1
    assert settings.scale
    assert not resolve_settings(config("dr-grpo", **SHORT), {}, num_processes=1).scale
    assert resolve_settings(
        config("dr-grpo", **SHORT), {"scale_rewards": "group"}, num_processes=1
    ).scale
    assert settings.group_size == settings.trl["per_device_train_batch_size"] == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (config(judge=None), "--algo pa-grpo rewards perception, which a judge does"),
        (config(template="think-answer", judge=None), "--template think-answer has no observation"),
        (config("grpo", template="grounding"), "--judge reads observations, but"),
        (config("grpo", group_reward="sum", judge=None), "--group-reward sum rewards perception"),
        (
            config("dapo+appo", appo_correctness="both", judge=None),
            "--appo-correctness both reads rewards of perception, and there are none",
        ),
        (config(lora_alpha=4, **SHORT), "need --lora-rank"),
        (
            config("dapo+appo", appo_tokens="observation", template="think-answer", judge=None),
            "--appo-tokens observation: --template think-answer has no observation",
        ),
        (
            config(reward=("accuracy",)),
            "--algo pa-grpo learns from the rewards of perception, but --reward gives perception"
            " none: add perception:sufficient (with --judge), perception:default, or",
        ),
        (
            config("grpo", reward=("perception:format",)),
            "--algo grpo learns from the rewards of reasoning, but --reward gives reasoning none",
        ),
        (
            config("grpo", reward=("accuracy", "sufficient"), judge=None),
            "--reward sufficient needs the judge's verdict: give --judge",
        ),
        (
            config(reward=("accuracy", "perception:length"), judge=None),
            "--reward length needs the judge's verdict: give --judge",
        ),
        (
            config("grpo", reward=("accuracy", "perception:format"), template="think-answer"),
            "--reward perception:format rewards perception, but --template think-answer has no",
        ),
        (
            config("grpo", reward=("accuracy", "perception:format")),
            "--reward perception:format rewards perception, but --algo grpo learns from reasoning"
            " alone; use --algo pa-grpo, --group-reward sum, or perception:format=0, which only",
        ),
        (
            config("dapo+appo", reward=("accuracy", "perception:format"), judge=None),
            "but --algo dapo+appo learns from reasoning alone",
        ),
        (config(reward=("video-r1-accuracy=much",)), "write NAME=WEIGHT"),
        (config(reward=("acuracy=1",)), "did you mean accuracy?"),
        (config(perception_tokens=(9, 3)), "--perception-tokens 9 3: give the least"),
    ],
)
def test_options_that_do_not_belong_together(options: RlOptions, words: str) -> None:
    assert words in refused(options, max_completion_length=2048)


def test_perception_can_be_rewarded_without_a_judge() -> None:
    """By rewards that need no verdict; then its observations may have any length."""
    options = config(reward=("accuracy", "perception:format"), judge=None)
    settings = resolve_settings(options, {"max_completion_length": 64}, num_processes=1)
    assert settings.rewards.rewards("perception")
    needing = config(reward=("accuracy", "length", "perception:format"), judge=None)
    assert "512 of reasoning, and tags" in refused(needing, max_completion_length=64)


@pytest.mark.parametrize(
    "options",
    [
        config("grpo", reward=("accuracy", "perception:format=0"), judge=None),
        config("grpo", reward=("accuracy", "perception:format"), group_reward="sum", judge=None),
        config("grpo", reward=("default",)),
        config("dapo+appo", reward=("accuracy", "perception:format"), appo_correctness="both"),
    ],
)
def test_a_reward_of_perception_that_is_read_or_only_logged(options: RlOptions) -> None:
    assert resolve_settings(options, {"max_completion_length": 2048}, num_processes=1).rewards


@pytest.mark.parametrize("option", ["judge_ahead", "published_rewards", "print_config"])
def test_a_weightings_option_of_a_taken_name_is_refused(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(TokenWeighting):
        name = option.partition("_")[0]
        options = create_model("MineOptions", __base__=Config, **{option: (float, 1.0)})  # type: ignore[call-overload]

    monkeypatch.setitem(TOKEN_WEIGHTINGS, Mine.name, Mine)
    with pytest.raises(UsageError, match=f"has an option {option}, which train.rl has already"):
        rl_config_class()


def test_the_former_name_of_reward_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--published-rewards", "video-r1-accuracy=0.9", "video-r1-format=0.1"]
    needed = ["--algo", "dapo", "--model", ".", "--questions", "q.json", "--media-root", "c"]
    options, trl = read_options([*needed, "--output-dir", "o", *words])
    assert capsys.readouterr().err.count("--reward") == 1
    settings = resolve_settings(options, trl, num_processes=1)
    assert settings.rewards.weights == {"video-r1-accuracy": 0.9, "video-r1-format": 0.1}


def test_completions_can_hold_what_the_length_reward_pays_for() -> None:
    words = refused(config(), max_completion_length=768)
    assert "512 of reasoning and 320 of perception" in words
    assert "give at least 864" in words
    resolve_settings(config(), {"max_completion_length": 864}, num_processes=1)
    resolve_settings(config("grpo", judge=None), {"max_completion_length": 768}, num_processes=1)
    assert "at least 544" in refused(config("grpo", judge=None), max_completion_length=500)
    resolve_settings(config(**SHORT), {"max_completion_length": 64}, num_processes=1)
    published = config("dapo", judge=None, reward=("video-r1-accuracy=0.9",))
    resolve_settings(published, {"max_completion_length": 64}, num_processes=1)


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
        ({"temperature": 0.0}, "--temperature must be a number above 0"),
        ({"generation_batch_size": 8, "steps_per_generation": 1}, "not both"),
    ],
)
def test_settings_of_trl_that_do_not_fit(trl: dict[str, Any], words: str) -> None:
    assert words in refused(config(**SHORT), **trl)


@pytest.mark.parametrize(
    ("algo", "trl", "words"),
    [
        ("pa-grpo", {"importance_sampling_level": "sequence"}, "but pa-grpo gives tokens"),
        ("dapo+appo", {"importance_sampling_level": "sequence"}, "the mean of its advantages"),
        ("grpo", {"importance_sampling_level": "sequence_token"}, "one of token, sequence"),
        ("dapo", {"loss_type": "cispo"}, "dapo's 0.28 would cut every ratio to that"),
        ("grpo", {"loss_type": "cispo", "epsilon": 0.3}, "grpo's 0.2 would cut every ratio"),
        ("dapo", {"loss_type": "cispo", "epsilon_high": 0.3}, "a larger number, for example 5"),
    ],
)
def test_a_ratio_that_undoes_the_algorithm_is_refused(
    algo: str, trl: dict[str, Any], words: str
) -> None:
    judge = "oracle:0" if algo.startswith("pa-") else None
    assert words in refused(config(algo, judge=judge, **SHORT), **trl)


def test_a_ratio_that_fits_is_taken() -> None:
    for algo, trl in (
        ("grpo", {"importance_sampling_level": "sequence"}),
        ("pa-dapo", {"importance_sampling_level": "token"}),
        ("pa-dapo", {"loss_type": "cispo", "epsilon_high": 5.0}),
    ):
        resolve_settings(config(algo, **SHORT), trl, num_processes=1)


def test_weights_spread_over_processes_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = resolve_settings(config(**SHORT), {"fsdp_config": {"version": 2}}, num_processes=2)
    assert settings.is_sharded
    assert settings.trl["fsdp"], "transformers reads settings only beside it"
    assert not resolve_settings(config(**SHORT), {}, num_processes=2).is_sharded
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "say --fsdp_version 2" in refused(config(**SHORT))


@pytest.mark.parametrize(
    "option", ["push_to_hub", "hub_model_id", "hub_token", "log_completions_hub_repo"]
)
def test_nothing_uploads_a_folder_with_other_peoples_pictures(option: str) -> None:
    given = ["--algo", "grpo", "--model", "m", "--questions", "q", "--media-root", "."]
    with pytest.raises(UsageError, match="judge's replies and pictures"):
        read_options([*given, "--output-dir", "o", f"--{option.replace('_', '-')}", "yes"])


@pytest.mark.parametrize("optimizer", ["lomo", "adalomo"])
def test_an_optimizer_that_does_not_wait_for_all_passes(optimizer: str) -> None:
    words = refused(config(completions_per_pass=2, **SHORT), optim=optimizer)
    assert f"--optim {optimizer} changes weights in every backward pass" in words
    resolve_settings(config(**SHORT), {"optim": optimizer}, num_processes=1)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        config(completions_per_pass=0)


def test_checkpoints_at_the_end_of_generations_are_taken() -> None:
    for trl in ({"save_steps": 4, "num_iterations": 2}, {"save_strategy": "epoch"}):
        resolve_settings(config(**SHORT), trl, num_processes=1)
    accumulated = {"save_steps": 1, "gradient_accumulation_steps": 4, "steps_per_generation": 2}
    resolve_settings(config(**SHORT), accumulated, num_processes=1)


def settled(options: RlOptions) -> Settings:
    return resolve_settings(options, {"max_completion_length": 2048}, num_processes=1)


def test_appo_wants_videos() -> None:
    options = config("pa-grpo+appo")
    with pytest.raises(UsageError, match=r"none of the 2 questions .* --algo pa-grpo$"):
        check_questions([question("a.png"), question("b.png")], options, settled(options))
    mixed = [question("a.png"), question("b.mp4")]
    check_questions(mixed, options, settled(options))


def test_questions_fill_a_generation() -> None:
    options = config()
    settings = resolve_settings(
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
    with pytest.raises(
        UsageError, match=r"times are rewarded \(time-iou\), but none .* has time clues"
    ):
        check_questions([question("a.mp4")], options, settled(options))
    timed = question("a.mp4", time_clues=((1.0, 2.0),))
    check_questions([timed], options, settled(options))
    whole = config("grpo", template="grounding", judge=None, integer_seconds=True)
    assert settled(whole).rewards.weights == {
        "next-gqa-accuracy": 1.0,
        "next-gqa-format": 0.1,
        "next-gqa-tiou": 1.0,
    }


def test_what_only_a_rollout_server_reads_is_refused_without_one() -> None:
    for name, value in {
        "vllm_url": "http://h:1",
        "trainer_host": "h",
        "rollouts_ahead": 1,
        "importance_cap": 3.0,
    }.items():
        option = "--" + name.replace("_", "-")
        with pytest.raises(UsageError, match=f"{option} needs --rollouts vllm"):
            settled(config("grpo", judge=None, **{name: value}))
    with pytest.raises(UsageError, match="--vllm-url, such as http"):
        settled(config("grpo", judge=None, rollouts="vllm"))
    url = {"rollouts": "vllm", "vllm_url": "http://h:1", "rollouts_ahead": 1}
    assert settled(config("grpo", judge=None, **url)).group_size == 8
    for name, value in {"groups_at_once": 2, "merge_adapters": False}.items():
        option = "--" + name.replace("_", "-")
        with pytest.raises(UsageError, match=f"{option} needs --rollouts inprocess"):
            settled(config("grpo", judge=None, **url, **{name: value}))


def test_a_hanging_judge_is_given_up_before_the_process_group() -> None:
    """9 x 200 s and 123.5 s between them are more than transformers' half an hour."""
    judge = {"judge": "openai:judge@http://127.0.0.1:1/v1", "timeout_seconds": 200.0, **SHORT}
    words = refused(config(**judge), processes=2)
    assert words == (
        "--timeout-seconds 200 and --concurrency 64 let a judge that hangs hold a process for"
        " 1924 s, but the other processes end the run after 1800 s (--ddp-timeout); give a shorter"
        " timeout, or --ddp-timeout 1984"
    )
    resolve_settings(config(**judge), {"ddp_timeout": 1984}, num_processes=2)
    resolve_settings(config(**judge), {}, num_processes=1)
    resolve_settings(config(**{**judge, "timeout_seconds": 120.0}), {}, num_processes=2)
    assert "hold a process" in refused(config(**judge, concurrency=1), 2, ddp_timeout=3600)


def test_choices_are_those_of_the_mathematics() -> None:
    fields = AppoOptions.model_fields
    assert get_args(fields["appo_strategy"].annotation) == get_args(Strategy)
    assert get_args(fields["appo_divergence"].annotation) == get_args(Divergence)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--algo", "ppo"], "unknown algorithm 'ppo'"),
        (["--algo", "grpo", "--use-vllm", "true"], REFUSED["use_vllm"]),
        (["--algo", "grpo", "--vllm-mode", "colocate"], "is not built; start a server"),
        (["--algo", "grpo", "--rollouts", "vllm"], "give its address by --vllm-url"),
        (["--algo", "grpo", "--reward-weights", "1"], "--accuracy-weight"),
        (["--algo", "grpo", "--num-generations", "1"], "at least 2"),
        (["--algo", "pa-grpo", "--judge", "openai:x@http://127.0.0.1:9"], "cannot be reached"),
    ],
)
def test_the_command_ends_with_one_sentence_and_loads_nothing(
    tmp_path: Path, options: list[str], words: str
) -> None:
    """The model cannot be loaded, and that is not what is told."""
    record = question("a.mp4").model_dump(mode="json", exclude={"row"})
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps(record | {"problem": f"Number {n}?"}) + "\n" for n in range(4))
    )
    (tmp_path / "model").mkdir()  # no model in it
    command = [sys.executable, "-m", "train.rl", "--model", str(tmp_path / "model")]
    command += ["--questions", str(tmp_path / "q.jsonl"), "--media-root", str(tmp_path)]
    command += ["--output-dir", str(tmp_path / "out")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be loaded" not in done.stderr
    assert not (tmp_path / "out" / "options.json").exists()
