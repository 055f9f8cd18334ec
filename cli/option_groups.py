"""The options that several commands share, in groups: each option is declared here and only here.

    class ReportConfig(AuditOptions, MediaRootOptions[Path | None], FrameOptions, ...,
                       defaults={"media_root": None, "frames": "uniform:8"}):

A group with a type in brackets has an option that is required in one command and optional in
another, or a text in one and a list in another: `MediaRootOptions[Path]` must be given,
`MediaRootOptions[Path | None]` with `defaults={"media_root": None}` need not be. A command takes
whole groups, so a group holds only what all of its commands have. What a command does differently
it says as a class keyword (see `cli.config_class`). Functions that need options take the group:
`open_session(options: BackendOptions)`.

Options of one command stay in that command's class, options of one room in a group of that room.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import Field, field_validator

from cli.config_class import Config
from schemas.annotations.columns import parse_columns
from schemas.annotations.formats import format_choices
from schemas.serialization import is_variable_name
from schemas.traces import TEMPLATES

P = TypeVar("P", Path, Path | None)
T = TypeVar("T")

VideoDecoder = Literal["decord", "pyav", "decord-then-pyav"]
DTYPES = ("auto", "bfloat16", "float16", "float32")


class PluginOptions(Config, group="other"):
    """What is imported before all other options are checked."""

    plugin: tuple[str, ...] = ()
    """Python files or modules to import first: they register rewards, algorithms, token weightings,
    annotation formats, judge backends, model families or metrics, which other options may name."""

    @field_validator("plugin", mode="before")
    @classmethod
    def _one_may_stand_alone(cls, plugin: object) -> object:
        """`plugin: mine.py` in a config file."""
        return (plugin,) if isinstance(plugin, str) else plugin


class OutputOptions(Config, Generic[P], group="output"):
    """Where a command writes."""

    output_dir: P
    """Folder for all that is written. The same command with the same folder resumes, or replaces
    what it wrote before."""


class DryRunOptions(Config, group="money"):
    """A command that only says what it would take."""

    dry_run: bool = False
    """Only estimate what the run would take."""


with warnings.catch_warnings():
    # pydantic's own `json` method, long deprecated
    warnings.filterwarnings("ignore", message='Field name "json"')

    class JsonOptions(Config, group="output"):
        """For programs that read what a command prints."""

        json: bool = False  # type: ignore[assignment]
        """Print JSON."""


class SeedOptions(Config, group="other"):
    """What everything random follows from."""

    seed: int = Field(default=0, ge=0)
    """Seed of everything random: the same seed and input give the same result."""


class LimitOptions(Config, group="data"):
    """How much of the input."""

    limit: int | None = Field(default=None, ge=1)
    """Use only the first N rows."""


class RetryFailedOptions(Config, group="data"):
    """What happens to rows that failed in an earlier run."""

    retry_failed: bool = False
    """Give rows another chance that ended in call or media errors in an earlier run."""


class MediaRootOptions(Config, Generic[P], group="media"):
    """Where videos and images lie."""

    media_root: P
    """Folder under which every path of videos and images lies; nothing outside it is opened."""


class QuestionFileOptions(
    MediaRootOptions[P],
    LimitOptions,
    Generic[P],
    choices={"format": format_choices},
    group="data",
):
    """A file of questions in one of the published layouts, and its media."""

    questions: P
    """Question file in one of the formats of --format: JSON, JSONL or CSV, gzipped or not, Parquet,
    or a folder of Parquet files."""
    format: str = "auto"
    """Layout of the question file."""
    columns: tuple[str, ...] = ()
    """Which columns of a file of any other layout hold what, for example
    problem=question,options=choices,solution=answer,path=video_file."""
    strip_prefix: tuple[str, ...] = ()
    """Leading parts to cut off the file's paths, for files that hold somebody else's absolute
    paths."""

    @field_validator("columns", mode="before")
    @classmethod
    def _may_be_a_mapping(cls, columns: object) -> object:
        """`columns: {problem: question}` in a config file."""
        if isinstance(columns, Mapping):
            return tuple(f"{key}={column}" for key, column in columns.items())
        return (columns,) if isinstance(columns, str) else columns

    @field_validator("columns")
    @classmethod
    def _are_columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        parse_columns(columns)
        return columns


class PredictionsOptions(Config, Generic[P], group="data"):
    """Answers of a model that exist already."""

    predictions: P
    """Answers that exist: JSON Lines of {question, ground_truth, model_output}, or a
    predictions.parquet of train.evaluate."""


class FrameCacheOptions(Config, group="speed"):
    """Decoded frames on disk."""

    frame_cache: Path | None = None
    """Folder for decoded frames, shared by all commands; default ~/.cache/p2r/frames."""


class FrameCacheSizeOptions(Config, group="speed"):
    """How large the cache of decoded frames may grow."""

    frame_cache_gb: float = Field(default=20, gt=0)
    """Size at which the frame cache drops what was not used for longest, in GB."""


class FrameOptions(FrameCacheOptions, renamed={"reader": "video_decoder"}, group="media"):
    """Which frames of a video are used, and how they are decoded."""

    frames: str = "uniform:16"
    """Which frames of a video: uniform:N, or fps:R,max=N."""
    max_pixels: int = Field(default=128 * 28 * 28, ge=28 * 28)
    """Largest frame, in pixels; larger ones are scaled down, none is scaled up."""
    video_decoder: VideoDecoder = "decord"
    """Library that decodes videos."""
    decode_timeout_seconds: float = Field(default=60, gt=0)
    """Time that one file may take to decode before it counts as unreadable."""
    follow_symlinks: bool = False
    """Follow symbolic links that lead out of the media root (hub caches are made of them)."""


class PageRoomOptions(Config, group="output"):
    """How large a page with frames may grow."""

    max_page_megabytes: int = Field(default=60, ge=0)
    """Room for frames on a page, in megabytes; further rows are listed without frames."""


class DecodeWorkerOptions(Config, group="speed"):
    """Processes beside the command's own that decode."""

    decode_workers: int = Field(default=2, ge=1)
    """Processes that decode."""


class BackendOptions(
    Config,
    group="speed",
    groups={"max_cost_usd": "money", "prices": "money", "api_key_env": "judge"},
):
    """How language models are called: pace, patience, money, keys, and the device of local ones."""

    concurrency: int = Field(default=16, ge=1)
    """Calls in flight at most, per backend and process; overload lowers it for a while by itself.
    """
    timeout_seconds: float = Field(default=300, gt=0)
    """Time that one call may take before it counts as failed and is tried again."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Rate limit in requests, per backend and process."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Rate limit in tokens, per backend and process."""
    max_cost_usd: float | None = Field(default=None, ge=0)
    """Stop before calls cost more than this, earlier runs of the same folder included, calls in
    flight counted at their worst case; per process, in US dollars."""
    prices: Path | None = None
    """TOML file of prices that adds to or replaces the built-in table
    (judges/backends/prices.toml)."""
    api_key_env: str | None = None
    """Environment variable whose key goes to an openai:MODEL@URL endpoint; OPENAI_API_KEY goes only
    to OpenAI's own host."""
    local_batch_size: int = Field(default=8, ge=1)
    """Requests per forward pass of a local: model."""
    device: str | None = None
    """Device of local models, as torch names it, for example cuda:1; default: a GPU if there is
    one, of several processes each its own."""

    @field_validator("api_key_env")
    @classmethod
    def _is_no_key(cls, name: str | None) -> str | None:
        """Options are printed and stored: a key among them is refused without being shown."""
        if name is not None and not is_variable_name(name):
            raise ValueError(
                "expected the name of an environment variable, like MY_SERVER_KEY, never the key"
                " itself (what was given is not shown)"
            )
        return name

    @field_validator("device")
    @classmethod
    def _auto_is_the_default(cls, device: str | None) -> str | None:
        return None if device == "auto" else device


class JudgeOptions(Config, Generic[T], group="judge"):
    """Who judges observations."""

    judge: T
    """Judge of observations, which sees text only: claude:MODEL, openai:MODEL@URL,
    local:PATH_OR_HUB_ID, or oracle:SEED (sandbox only)."""


class JudgeReplyOptions(Config, renamed={"judge_retries": "retries"}, group="judge"):
    """How a judge replies, and how often it is asked again."""

    judge_max_tokens: int = Field(default=512, ge=1)
    """Longest judge reply, in tokens."""
    judge_temperature: float | None = Field(default=None, ge=0)
    """The judge's sampling temperature, for backends that take one."""
    retries: int = Field(default=2, ge=0)
    """How often a judge whose reply holds no verdict is asked again before the verdict counts as
    missing (`unscored`)."""


class AnswerLeakOptions(Config, group="judge"):
    """Observations that claim the answer."""

    allow_leaks: bool = False
    """Ask the judge also about observations that claim the answer; by default they fail without
    being judged."""


class ReaderSamplesOptions(Config, group="judge"):
    """How often a text-only reader answers."""

    blind_samples: int = Field(default=4, ge=4)
    """How often a text-only reader answers each question, with its options in other orders."""


class BlindMarkOptions(Config, group="judge"):
    """When a question counts as answered without its video."""

    blind_correct: int | None = Field(default=None, ge=1)
    """How many of the --blind-samples answers without the video must be correct for a question to
    count as answerable blind; default: all of them."""


def refuse_unreachable(correct: int | None, samples: int) -> None:
    """Raise ValueError where more answers would have to be correct than are given."""
    if correct is not None and correct > samples:
        raise ValueError(
            f"--blind-correct {correct} can never be reached with --blind-samples {samples}; "
            "give a number up to that"
        )


class SufficiencyMarginOptions(Config, group="judge"):
    """When answers from an observation show that it suffices."""

    sufficiency_margin: float = Field(default=0.5, gt=0, le=1)
    """By how much the share of correct answers from the observation must exceed the share without
    it."""


class GeneratorOptions(Config, Generic[T], group="judge"):
    """Who writes traces."""

    generator: T
    """Teacher: claude:MODEL, openai:MODEL@URL, local:PATH_OR_HUB_ID, or oracle:SEED (sandbox
    only)."""


class TemplateOptions(Config, choices={"template": lambda: TEMPLATES}, group="model"):
    """The form of a trace."""

    template: str = "p2r"
    """Trace template that the model is asked for."""


class NewTokensOptions(Config, group="model"):
    """How long a reply may be."""

    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest reply, in tokens; a longer one is cut off and counted."""


class TemperatureOptions(Config, Generic[T], group="model"):
    """How random replies are."""

    temperature: T = Field(ge=0)
    """Sampling temperature, for models that take one; 0 is greedy."""


class ModelOptions(Config, Generic[T], group="model"):
    """The model that is trained or run."""

    model: T
    """Model: a folder or a hub id of a supported family."""


class DtypeOptions(
    Config, renamed={"model_dtype": "dtype"}, choices={"dtype": lambda: DTYPES}, group="model"
):
    """How weights are kept."""

    dtype: str = "auto"
    """Number format of the weights; auto is the checkpoint's."""


class RopePositionOptions(Config, group="model"):
    """Where a video's cells stand in time."""

    rope_positions: Literal["released", "apart"] = "released"
    """Qwen2.5-VL's positions of a clip's temporal cells: released, as its released code and vLLM
    compute them (cells above 2 per second share a position), or apart, where each is at least one
    after the cell before it. Give the same in training, evaluation and serving."""


class AttentionOptions(Config, group="model"):
    """How attention is computed."""

    attention: str = "sdpa"
    """Attention implementation, as transformers names it."""


class RolloutServerOptions(Config, group="model"):
    """Who samples completions."""

    rollouts: Literal["inprocess", "vllm"] = "inprocess"
    """Who samples completions: this command's own processes, or a vLLM server that serves --model
    (docs/guides/vllm_rollouts.md)."""
    vllm_url: str | None = None
    """Address of the vLLM server, such as http://127.0.0.1:8000."""
    vllm_timeout_seconds: float = Field(default=600, gt=0, le=10**8)
    """Longest wait for the next bytes of the vLLM server."""
    trainer_host: str | None = None
    """Name or address under which the vLLM server reaches this machine to receive weights; by
    default the address of the network that the server is in."""


class NeedsVideoOptions(Config, group="data"):
    """Questions that need their video."""

    needs_video: Literal["all", "only"] = "all"
    """only: leave out the rows that are marked `answerable_blind`, because a text reader answered
    them without the video (pipeline.build_cot --blind-filter)."""


class TrainedWeightsOptions(Config, choices={"save_dtype": lambda: DTYPES}, group="training"):
    """Which weights learn, and how they are saved."""

    freeze_vision: bool = False
    """Train the language model only, not the vision tower."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of LoRA adapters; 0 trains the weights themselves."""
    lora_alpha: int | None = Field(default=None, ge=1)
    """LoRA's alpha; default twice the rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of LoRA's inputs."""
    lora_targets: tuple[str, ...] = ()
    """Names of the layers that get an adapter; default: the linear layers of the language model."""
    save_dtype: str = "auto"
    """Number format of the weights in the finished model; auto is that of the model that training
    began with. Checkpoints keep the format of training."""


class LearningRateOptions(Config, group="training"):
    """How large optimizer steps are."""

    learning_rate: float = Field(default=1e-6, ge=0)
    """Peak learning rate of AdamW."""


class BatchSizeOptions(Config, Generic[T], group="speed"):
    """How many rows at once."""

    batch_size: T = Field(ge=1)
    """Rows of one batch."""


class AuditOptions(Config, group="data"):
    """The folder of an audit."""

    audit: Path
    """Folder of the audit, as `judges.audit sample` wrote it: audit.duckdb and config.json."""


class ResamplingOptions(SeedOptions, group="output"):
    """Intervals by resampling videos."""

    resamples: int = Field(default=2000, ge=200)
    """How many times videos are resampled for an interval."""
