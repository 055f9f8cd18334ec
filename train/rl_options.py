"""The options of `python -m train.rl`; the string under each is its help.

TRL's own options (`--learning-rate`, `--num-generations`, ...) stand beside them on the same
command line; what cannot be given of them, and why, is in `REFUSED`.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from schemas.config import Config
from train.algorithms import GroupReward, RightBy, WeightedTokens

# What a resumed run may change: how fast, how patient, what it may pay, and what it tells.
MAY_CHANGE_ON_RESUME = frozenset(
    {
        "frame_cache",
        "decode_workers",
        "decode_timeout_seconds",
        "judge_concurrency",
        "judge_timeout_seconds",
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
        "judge_device",
        "share_prompts",
        "pages_every",
        "page_groups",
        "start_check",
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

_REWARDS = "rewards are options of this command (--accuracy-weight, --published-rewards, ...)"
_SAMPLER = "completions are drawn by our own sampler, which shares each prompt over its group"
_EVALUATION = "train.evaluate scores checkpoints"
_NO_TOOLS = "completions are single turns without tools"
REFUSED = {
    "sync_ref_model": "no checkpoint holds a reference that moves, so a resumed run would learn"
    " against another one",
    "reward_weights": _REWARDS,
    "multi_objective_aggregation": _REWARDS,
    "use_vllm": "vLLM is not wired to video prompts yet; " + _SAMPLER,
    "use_transformers_continuous_batching": _SAMPLER,
    "use_transformers_paged": _SAMPLER,
    "cache_implementation": _SAMPLER,
    "generation_kwargs": _SAMPLER + "; give --temperature, --top-p, --top-k or --min-p",
    "chat_template_kwargs": "the prompt is the template's (--template)",
    "model_init_kwargs": "give --model-dtype; the model is loaded with SDPA attention",
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
}
"""TRL's options that cannot be given here, and why."""

TRL_DEFAULTS = {
    "max_completion_length": 1024,
    "logging_steps": 1,
    "save_steps": 50,
    "report_to": "none",
}
"""Where our default is not TRL's. The algorithm's settings (`train.algorithms`) come on top."""


class RlConfig(Config):
    """Options of `python -m train.rl`."""

    algo: str
    """Algorithm: grpo, dapo, dr-grpo, pa-grpo or pa-dapo, each also with +appo. It sets
    --loss-type, --beta, --epsilon and --epsilon-high, unless they are given."""
    model: str
    """Checkpoint to start from, a folder or hub id; also the reference model where --beta is not
    0."""
    questions: Path
    """Question file: JSON, JSONL or CSV, gzipped or not, in one of the formats of --format."""
    media_root: Path
    """Folder under which every path of the question file lies; nothing outside it is opened."""
    output_dir: Path
    """Folder for checkpoints, the final model, metrics.jsonl, pages and the judge's ledger. The
    same command with the same folder resumes."""
    judge: str | None = None
    """Judge of observations, which earns perception its reward: claude:MODEL, openai:MODEL@URL,
    local:PATH_OR_HUB_ID, or oracle:SEED (sandbox only). It sees text only."""

    format: Literal[
        "auto", "video-r1", "videop2r", "nextgqa", "perception-test", "seed-bench-r1", "jsonl"
    ] = "auto"
    """Layout of the question file; auto looks at its content."""
    strip_prefix: tuple[str, ...] = ()
    """Leading parts to cut off the file's paths, for files that hold somebody else's absolute
    paths."""
    follow_symlinks: bool = False
    """Follow symbolic links that lead out of the media root (hub caches are made of them)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first N rows of the question file."""
    template: Literal["p2r", "think-answer", "grounding"] = "p2r"
    """Trace template that the model is asked for; perception rewards need p2r. grounding (answer
    and time, for questions with time clues) is rewarded as APPO does it: accuracy + 0.1 format +
    time IoU, in real seconds unless --integer-seconds; --published-rewards changes that."""
    frames: str = "uniform:16"
    """Which frames of a video: uniform:N, or fps:R,max=N."""
    max_pixels: int = Field(128 * 28 * 28, ge=28 * 28)
    """Largest frame, in pixels; larger ones are scaled down, none is scaled up."""
    reader: Literal["decord", "pyav", "decord-then-pyav"] = "decord"
    """Who decodes videos."""
    decode_timeout_seconds: float = Field(60, gt=0)
    """Time that one file may take to decode before its question counts as unreadable."""
    decode_workers: int = Field(2, ge=1)
    """Processes that decode, per training process."""
    frame_cache: Path | None = None
    """Folder for decoded frames, shared with builds and evaluation; default ~/.cache/p2r/frames."""

    model_dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Number format of the weights that learn; auto is the checkpoint's. Passes run in bfloat16 on
    a GPU anyway (--bf16), and small updates would be lost in bfloat16 weights."""
    freeze_vision: bool = True
    """Do not train the vision tower; it then runs once per prompt for all passes."""
    lora_rank: int = Field(0, ge=0)
    """Train a LoRA adapter of this rank instead of all weights; 0 trains the weights."""
    lora_alpha: int | None = Field(None, ge=1)
    """LoRA's scale; by default twice the rank."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """LoRA's dropout. Above 0 each completion is forwarded with its own copy of the prompt."""
    lora_targets: tuple[str, ...] = ()
    """Layers that get an adapter; by default all linear layers of the language model."""
    share_prompts: bool = True
    """Forward a prompt once for all of its completions; off is the plain path, same numbers."""
    start_check: bool = True
    """Before the first step, compare vision tokens, token ids and log-probs of one question between
    generation and learning, and refuse to start where they differ."""

    group_reward: GroupReward = "reasoning"
    """The reward of a rollout under grpo, dapo and dr-grpo: its reasoning reward, or the sum of
    perception and reasoning (VideoP2R's ablation "without separation"; needs a judge)."""
    accuracy_weight: float = 1.0
    """Weight of the accuracy terms: the answer's metric, the judge's verdict."""
    format_weight: float = 1.0
    """Weight of the format terms: a segment's tags are well formed."""
    length_weight: float = 1.0
    """Weight of the length terms; 0 switches them off."""
    length_bonus: float = 0.2
    """What a segment earns whose accuracy and format are above 0 and whose length is in range."""
    perception_tokens: tuple[int, int] = (128, 320)
    """Least and most tokens of an observation that earn the bonus."""
    reasoning_tokens: tuple[int, int] = (320, 512)
    """Least and most tokens of think and answer together that earn the bonus."""
    integer_seconds: bool = False
    """Score times in whole seconds, as APPO's released reward does, not in real ones."""
    published_rewards: tuple[str, ...] = ()
    """Rewards of APPO's released code as NAME=WEIGHT, for example video-r1-accuracy=0.9
    video-r1-format=0.1; their sum is then the reasoning reward. Names: video-r1-accuracy,
    video-r1-format, next-gqa-accuracy, next-gqa-format, next-gqa-tiou, think-length, and time-iou
    (in real seconds; not released)."""
    allow_leaks: bool = False
    """Ask the judge also about observations that claim the answer; by default their accuracy is
    0."""

    missing_rewards_limit: float = Field(0.2, ge=0, le=1)
    """Share of a step's verdicts without a reply above which training pauses, asks again, and at
    last stops with a checkpoint."""
    judge_pause_seconds: float = Field(10, ge=0)
    """The first such pause; each further one is twice as long, 5 minutes at most."""
    judge_pauses: int = Field(5, ge=0)
    """After so many pauses training stops."""
    judge_ahead: bool = True
    """Ask the judge about an observation as soon as it is closed, while the rest of its completion
    is drawn; a completion that breaks its template later was judged for nothing."""
    judge_prompt: Literal["sufficiency", "sufficiency-short"] = "sufficiency"
    """What the judge is asked: the paper's prompt, or a shorter one for small judges."""
    judge_max_tokens: int = Field(512, ge=1)
    """Longest judge reply, in tokens."""
    judge_retries: int = Field(2, ge=0)
    """How often a judge whose reply holds no verdict is asked again before it counts as missing."""
    judge_temperature: float | None = Field(None, ge=0)
    """The judge's sampling temperature, for backends that take one."""
    judge_concurrency: int = Field(64, ge=1)
    """Calls in flight at most, per training process."""
    judge_timeout_seconds: float = Field(120, gt=0)
    """Time that one call may take before it counts as failed and is tried again."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Rate limit of the judge, in requests, per training process."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Rate limit of the judge, in tokens, per training process."""
    max_cost_usd: float | None = Field(None, gt=0)
    """Stop with a checkpoint before the judge costs more, per training process, in US dollars."""
    prices: Path | None = None
    """TOML file of prices that adds to or replaces the built-in table."""
    api_key_env: str | None = None
    """Environment variable whose key goes to an openai:MODEL@URL judge; OPENAI_API_KEY goes only to
    OpenAI's own host."""
    local_batch_size: int = Field(8, ge=1)
    """Requests per forward pass of a local: judge."""
    judge_device: str | None = None
    """Device of a local: judge, as torch names it; default: a GPU if there is one."""

    appo_strategy: Literal["soft", "hard", "soft-or-all", "all", "every-frame"] = "soft"
    """Crucial frames, with +appo: those that right rollouts look at (soft), right but not wrong
    ones (hard), right ones or, when none is right, all (soft-or-all), all rollouts (all), or every
    frame of the video (every-frame)."""
    appo_score_tokens: int = Field(15, ge=1)
    """K1: a rollout's interest in a frame is the mean of so many of its highest attentions, in
    tokens."""
    appo_frames_per_rollout: int = Field(3, ge=1)
    """K2: so many best frames of a rollout count as looked at."""
    appo_tokens_per_frame: int = Field(128, ge=1)
    """K3: so many tokens of each rollout follow a crucial frame. At or above the completions'
    length attention no longer matters."""
    appo_max_weight: float = Field(1.7, ge=1)
    """The largest weight of a token; the smallest is 1, and 1 here switches the weights off."""
    appo_reward_threshold: float = 0.5
    """A rollout is right when its accuracy is at least this."""
    appo_divergence: Literal["released", "kl"] = "released"
    """How rollouts are compared at a token: as the published code does it (released), or by the
    paper's formula (kl)."""
    appo_right_by: RightBy = "accuracy"
    """Whose accuracy says that a rollout is right: the answer's, the observation's (perception), or
    both. APPO knows the answer's only; anything else changes the published algorithm."""
    appo_tokens: WeightedTokens = "all"
    """Which tokens may weigh more than 1: all, or those of the observation only. The latter changes
    the published algorithm."""
    appo_detach: bool = True
    """Weights are plain numbers. The published code lets gradient flow through them; that is not
    offered here."""

    pages_every: int = Field(50, ge=0)
    """Write a page of rollouts every so many steps (and their records as JSON Lines); 0 never."""
    page_groups: int = Field(4, ge=1)
    """Most groups on a page."""
