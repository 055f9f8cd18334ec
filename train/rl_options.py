"""The options of `python -m train.rl`; the string under each is its help.

TRL's own options (`--learning-rate`, `--num-generations`, ...) stand beside them on the same
command line; those that cannot be given, and why, are in `REFUSED`.
"""

from collections.abc import Collection
from pathlib import Path
from types import new_class

from pydantic import Field

from cli.config import UsageError
from cli.option_groups import (
    AnswerLeakOptions,
    DecodeWorkerOptions,
    DryRunOptions,
    DtypeOptions,
    FrameOptions,
    JudgeOptions,
    ModelOptions,
    NeedsVideoOptions,
    OutputOptions,
    PluginOptions,
    QuestionFileOptions,
    RolloutServerOptions,
    RopePositionOptions,
    TemplateOptions,
    TrainedWeightsOptions,
)
from train.algorithms.registry import ALGORITHMS, TOKEN_WEIGHTINGS, GroupReward
from train.algorithms.token_weighting import TokenWeighting
from train.early_checks import known_options
from train.rewards.options import JudgeCallOptions, JudgeOutageOptions, RewardOptions
from train.rewards.plan import reward_names

# What a resumed run may change: pace, patience, money and reports.
MAY_CHANGE_ON_RESUME = frozenset(
    {
        "dry_run",
        "pilot",
        "frame_cache",
        "decode_workers",
        "decode_timeout_seconds",
        "concurrency",
        "timeout_seconds",
        "judge_pause_seconds",
        "judge_pauses",
        "judge_ahead",
        "missing_rewards_limit",
        "requests_per_minute",
        "tokens_per_minute",
        "max_cost_usd",
        "prices",
        "api_key_env",
        "local_batch_size",
        "device",
        "share_prompts",
        "completions_per_pass",
        "groups_at_once",
        "merge_adapters",
        "vllm_url",
        "vllm_timeout_seconds",
        "trainer_host",
        "pages_every",
        "page_groups",
        "parity_check",
        "save_dtype",
        # TRL's
        "disable_tqdm",
        "log_level",
        "logging_steps",
        "report_to",
        "run_name",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "dataloader_num_workers",
    }
)

_REWARDS = "rewards are options of this command (--reward, --accuracy-weight, ...)"
_SAMPLER = "completions come from our own sampler, which shares each prompt over its group"
_ENGINE = "TRL's vLLM takes no videos; give --rollouts vllm and --vllm-url"
_OWN_PROCESS = (
    "vLLM inside of the learner's processes is not built; start a server, and give --rollouts vllm"
    " and --vllm-url"
)
_SERVER = "it is an option of the vLLM server, which you start (--rollouts vllm, --vllm-url)"
_RATIO = "give --importance-cap, which truncates the ratio between learner and vLLM"
_EVALUATION = "train.evaluate scores checkpoints"
_NO_TOOLS = "completions are single turns without tools"
_NO_UPLOAD = (
    "TRL would upload the whole output folder, with the judge's replies and pictures of the clips;"
    " python -m train.push RUN OWNER/NAME sends the finished model and its card"
)
REFUSED = {
    "sync_ref_model": "no checkpoint holds a reference that moves, so a resumed run would learn"
    " against another one",
    "reward_weights": _REWARDS,
    "multi_objective_aggregation": _REWARDS,
    "use_vllm": _ENGINE,
    "vllm_mode": _OWN_PROCESS,
    "vllm_model_impl": _SERVER,
    "vllm_enable_sleep_mode": _OWN_PROCESS,
    "vllm_structured_outputs_regex": "a completion is free text",
    "vllm_server_base_url": _ENGINE,
    "vllm_server_host": _ENGINE,
    "vllm_server_port": _ENGINE,
    "vllm_server_timeout": _ENGINE,
    "vllm_group_port": _ENGINE,
    "vllm_gpu_memory_utilization": _SERVER,
    "vllm_max_model_length": _SERVER,
    "vllm_tensor_parallel_size": _SERVER,
    "vllm_importance_sampling_correction": _RATIO,
    "vllm_importance_sampling_mode": _RATIO,
    "vllm_importance_sampling_clip_max": _RATIO,
    "vllm_importance_sampling_clip_min": _RATIO,
    "vllm_importance_sampling_cap": _RATIO,
    "use_transformers_continuous_batching": _SAMPLER,
    "use_transformers_paged": _SAMPLER,
    "cache_implementation": _SAMPLER,
    "generation_kwargs": _SAMPLER + "; give --temperature, --top-p, --top-k or --min-p",
    "chat_template_kwargs": "the prompt is the template's (--template)",
    "model_init_kwargs": "give --dtype; the model is loaded with SDPA attention",
    "trust_remote_code": "code that comes with a model is never run",
    "max_tool_calling_iterations": _NO_TOOLS,
    "off_policy_mask_threshold": "it assumes one advantage per rollout",
    "pad_to_multiple_of": "groups are forwarded without padding",
    "num_generations_eval": _EVALUATION,
    "eval_strategy": _EVALUATION,
    "eval_steps": _EVALUATION,
    "eval_on_start": _EVALUATION,
    "do_eval": _EVALUATION,
    "do_predict": _EVALUATION,
    "load_best_model_at_end": _EVALUATION,
    "metric_for_best_model": _EVALUATION,
    "log_completions": "--pages-every writes completions with their rewards and weights",
    "resume_from_checkpoint": "the same command with the same --output-dir resumes by itself",
    "ignore_data_skip": "a resumed run would see other questions",
    "save_only_model": "a checkpoint without its optimizer could not be resumed from",
    "remove_unused_columns": "rows are numbers of questions",
    "auto_find_batch_size": "a smaller batch would cut groups",
    "train_sampling_strategy": "TRL's sampler keeps groups together",
    "neftune_noise_alpha": "noise in embeddings would make sampling and learning differ",
    "label_smoothing_factor": "there are no labels",
    "push_to_hub": _NO_UPLOAD,
    "hub_model_id": _NO_UPLOAD,
    "hub_strategy": _NO_UPLOAD,
    "hub_token": _NO_UPLOAD,
    "hub_private_repo": _NO_UPLOAD,
    "hub_always_push": _NO_UPLOAD,
    "hub_revision": _NO_UPLOAD,
    "log_completions_hub_repo": _NO_UPLOAD,
}
"""TRL's options that cannot be given here, and why."""

TRL_DEFAULTS = {
    "max_completion_length": 1024,
    "logging_steps": 1,
    "save_steps": 50,
    "save_total_limit": 2,
    "report_to": "none",
}
"""Where our default is not TRL's. The algorithm's settings (`train.algorithms.registry`) come on
top."""


class RlOptions(
    PluginOptions,
    QuestionFileOptions[Path],
    NeedsVideoOptions,
    OutputOptions[Path],
    DryRunOptions,
    ModelOptions[str],
    JudgeOptions[str | None],
    TemplateOptions,
    FrameOptions,
    RopePositionOptions,
    DecodeWorkerOptions,
    DtypeOptions,
    TrainedWeightsOptions,
    RolloutServerOptions,
    RewardOptions,
    AnswerLeakOptions,
    JudgeOutageOptions,
    JudgeCallOptions,
    defaults={"judge": None, "freeze_vision": True},
    choices={"dtype": lambda: ("auto", "float32", "bfloat16")},
    renamed={"start_check": "parity_check"},
    notes={
        "model": "Training starts from it; it is also the reference where --beta is not 0.",
        "output_dir": "It gets checkpoints, the final model, metrics.jsonl, pages of rollouts and"
        " the judge's ledger.",
        "judge": "It earns perception its reward.",
        "template": "Perception rewards need p2r. grounding (answer and time, for questions with"
        " time clues) is by default rewarded as APPO does it: accuracy + 0.1 format + time IoU.",
        "dry_run": "Here calls, tokens and dollars of the judge, and memory by part on each GPU, as"
        " train.plan prints it; nothing is loaded or paid.",
        "dtype": "Here auto is float32 for weights that train (small updates would be lost in"
        " bfloat16; passes run in bfloat16 on a GPU anyway, --bf16), and bfloat16 for what is"
        " frozen under LoRA on a GPU.",
        "freeze_vision": "The tower then runs once per prompt for all passes.",
        "lora_dropout": "Above 0 each completion is forwarded with its own copy of the prompt.",
    },
    group="training",
    groups={
        "share_prompts": "speed",
        "completions_per_pass": "speed",
        "groups_at_once": "speed",
        "merge_adapters": "speed",
        "rollouts_ahead": "speed",
        "pilot": "money",
        "pages_every": "output",
        "page_groups": "output",
    },
    example="--algo pa-grpo+appo --model out/sft --judge claude:claude-haiku-5-5 "
    "--questions q.json --media-root clips --output-dir out/rl",
):
    """Options of `python -m train.rl`, except those of token weightings."""

    algo: str
    """Algorithm. It sets --loss-type, --beta, --epsilon and --epsilon-high, unless they are given.
    """
    group_reward: GroupReward = "reasoning"
    """The reward of a rollout under algorithms with one advantage per rollout (grpo, dapo,
    dr-grpo): its reasoning reward, or the sum of perception and reasoning (VideoP2R's ablation
    "without separation")."""
    share_prompts: bool = True
    """Forward a prompt once for all of its completions; off is the plain path, same numbers."""
    completions_per_pass: int | None = Field(None, ge=1)
    """Most completions that are forwarded together, with a backward pass for them alone: less
    memory, same gradients. Below --num-generations a group is forwarded in parts, each with the
    prompt in front; by default all of --per-device-train-batch-size go together."""
    parity_check: bool = True
    """Before the first step, compare vision tokens, token ids and log-probs of one question between
    sampler and trainer, and refuse to start where they differ."""
    groups_at_once: int | None = Field(None, ge=1)
    """With --rollouts inprocess: most groups whose completions are sampled together; by default all
    of a generation, which takes the least time and the most memory."""
    merge_adapters: bool | None = None
    """With --rollouts inprocess and --lora-rank: while completions are sampled, adapters are added
    to copies of the weights, which takes memory and saves time. By default where the base is in
    float32: a narrower one would round small updates away, and the sampler would lag behind."""
    rollouts_ahead: int = Field(0, ge=0, le=1)
    """With --rollouts vllm: 1 samples the next generation while this one is learned from, with
    weights that are one generation old; 0 waits for new weights."""
    importance_cap: float = Field(2.0, ge=1)
    """With --rollouts vllm: a token's importance ratio between learner and sampler counts up to
    this."""
    pilot: Path | None = None
    """With --dry-run: output folder of a shorter run of this kind; how often its judge was asked
    and how long texts were takes the place of what is assumed."""
    pages_every: int = Field(50, ge=0)
    """Write a page of rollouts (and their records as JSON Lines) every N steps; 0 never."""
    page_groups: int = Field(4, ge=1)
    """Most groups on a page."""


def rl_config_class() -> type[RlOptions]:
    """`RlOptions` with the options of every registered token weighting, and all names in its help.

    Load plugins first: what they register is then part of it. Raises UsageError where an option of
    a weighting has the name of another one.
    """
    _refuse_shadowing()
    options = [weighting.options for weighting in TOKEN_WEIGHTINGS.values()]
    plain = [name for name, spec in ALGORITHMS.items() if not spec.weighting]
    weighted = " or ".join(f"+{name}" for name in TOKEN_WEIGHTINGS)
    notes = {
        "algo": f"One of {', '.join(plain)}, each also with {weighted} behind it.",
        "reward": f"Names: {reward_names()}.",
    }
    composed: type[RlOptions] = new_class("RlConfig", (RlOptions, *options), {"notes": notes})
    return composed


def _refuse_shadowing() -> None:
    taken = {*RlOptions.model_fields, *RlOptions.former_names, "help_all", "print_config"}
    for weighting in TOKEN_WEIGHTINGS.values():
        refuse_taken_options(weighting, taken)
        taken |= {*weighting.options.model_fields}


def refuse_taken_options(weighting: type[TokenWeighting], taken: Collection[str]) -> None:
    """Raise UsageError where an option of a weighting has a name that is taken already."""
    for name in weighting.options.model_fields:
        if name in taken:
            raise UsageError(
                f"the token weighting {weighting.name} has an option {name}, which train.rl has"
                " already; rename the option, or the weighting"
            )


def trl_options() -> list[str]:
    """The names of TRL's options that this command takes besides its own."""
    taken = {*rl_config_class().model_fields, *REFUSED}
    return sorted({*(known_options("GRPOConfig") or ())} - taken)


RlConfig = rl_config_class()
"""Options of `python -m train.rl` without a plugin."""
