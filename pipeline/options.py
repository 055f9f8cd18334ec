"""The options of `python -m pipeline.build_cot`; the string under each is its help."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from schemas.config import Config

# What a resumed build may change: how long, how fast, how much it may pay, and what it prints;
# never what a row becomes.
MAY_CHANGE_ON_RESUME = frozenset(
    {
        "limit",
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "call_timeout_seconds",
        "retry_base_seconds",
        "retry_cap_seconds",
        "decode_workers",
        "frame_cache",
        "frame_cache_gb",
        "local_batch_size",
        "device",
        "batch",
        "batch_linger_seconds",
        "batch_poll_seconds",
        "max_cost_usd",
        "prices",
        "api_key_env",
        "check",
        "check_decode",
        "dry_run",
        "retry_failed",
        "export",
        "card_copy",
    }
)

FormatName = Literal[
    "auto", "video-r1", "videop2r", "nextgqa", "perception-test", "seed-bench-r1", "jsonl"
]


class BuildConfig(Config):
    """Options of `python -m pipeline.build_cot`."""

    questions: Path
    """Question file: JSON, JSONL or CSV, gzipped or not, in one of the formats of --format."""
    media_root: Path
    """Folder under which every path of the question file lies; nothing outside it is opened."""
    format: FormatName = "auto"
    """Layout of the question file; auto looks at its content."""
    strip_prefix: tuple[str, ...] = ()
    """Leading parts to cut off the file's paths, for files that hold somebody else's absolute
    paths.
    """
    follow_symlinks: bool = False
    """Follow symbolic links that lead out of the media root (hub caches are made of them)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first N rows of the question file; a later run may raise it and goes on."""

    output_dir: Path | None = None
    """Folder for ledger, dataset and card. The same command with the same folder resumes."""
    generator: str | None = None
    """Teacher: claude:MODEL, openai:MODEL@URL, local:PATH_OR_HUB_ID, or oracle:SEED (sandbox
    only).
    """
    judge: str | None = None
    """Judge of observations, in the same spelling; it sees text only."""
    attempts: int = Field(1, ge=1)
    """Draws per question until one passes all steps (rejection sampling)."""
    threshold: float = Field(0.6, ge=0, le=1)
    """Least answer score that passes verification (VideoP2R: 0.6)."""
    max_new_tokens: int = Field(1024, ge=1)
    """Longest trace, in tokens; a longer reply is asked again at most twice, then rejected."""
    judge_max_tokens: int = Field(512, ge=1)
    """Longest judge reply, in tokens."""
    judge_retries: int = Field(2, ge=0)
    """How often a judge whose reply holds no verdict is asked again before the row is
    `unscored`.
    """
    temperature: float | None = Field(None, ge=0)
    """The teacher's sampling temperature, for backends that take one (Claude takes none)."""
    judge_temperature: float | None = Field(None, ge=0)
    """The judge's sampling temperature, for backends that take one."""
    allow_leaks: bool = False
    """Judge observations that claim the answer instead of rejecting them; they stay flagged."""

    frames: str = "uniform:16"
    """Which frames of a video: uniform:N, or fps:R,max=N."""
    max_pixels: int = Field(128 * 28 * 28, ge=28 * 28)
    """Largest frame, in pixels; larger ones are scaled down, none is scaled up."""
    reader: Literal["decord", "pyav", "decord-then-pyav"] = "decord"
    """Who decodes videos; the ledger records the reader of each file."""
    decode_timeout_seconds: float = Field(60, gt=0)
    """Time that one file may take to decode before its worker is killed and the row rejected."""
    decode_workers: int = Field(2, ge=1)
    """Processes that decode."""
    frame_cache: Path | None = None
    """Folder for decoded frames, shared by builds and trainers; default ~/.cache/p2r/frames."""
    frame_cache_gb: float = Field(20, gt=0)
    """Size at which the frame cache drops what was not used for longest, in GB."""

    concurrency: int = Field(16, ge=1)
    """Calls in flight per backend at most; overload lowers it for a while by itself."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Rate limit per backend, in requests."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Rate limit per backend, in tokens."""
    call_timeout_seconds: float = Field(300, gt=0)
    """Time that one call may take before it counts as failed and is tried again."""
    retry_base_seconds: float = Field(0.5, gt=0)
    """First wait before a failed call is tried again; doubles each time, with jitter."""
    retry_cap_seconds: float = Field(60, gt=0)
    """Longest wait of our own; a server's Retry-After may be longer."""
    api_key_env: str | None = None
    """Environment variable whose key goes to an openai:MODEL@URL endpoint; OPENAI_API_KEY goes only
    to OpenAI's own host.
    """
    local_batch_size: int = Field(8, ge=1)
    """Requests per forward pass of a local: model."""
    device: str | None = None
    """Device of a local: model, as torch names it; default: a GPU if there is one."""
    batch: bool = False
    """Use the Message Batches API of claude: backends: half the price, within a day."""
    batch_linger_seconds: float = Field(10, gt=0)
    """How long a batch waits for more requests before it is sent, in seconds."""
    batch_poll_seconds: float = Field(30, gt=0)
    """How often a running batch is looked at, in seconds."""
    max_cost_usd: float | None = Field(None, gt=0)
    """Stop before more than this is spent, calls in flight counted at their worst case, in US
    dollars.
    """
    prices: Path | None = None
    """TOML file of prices that adds to or replaces the built-in table
    (judges/backends/prices.toml).
    """

    check: bool = False
    """Only read the question file and look at every path: how many rows are unusable, and why."""
    check_decode: bool = False
    """With --check, decode every file too (slow; fills the frame cache)."""
    dry_run: bool = False
    """Only say what the build will cost: calls, tokens and dollars by step; nothing paid is
    sent.
    """
    retry_failed: bool = False
    """Give rows that ended in call or media errors another chance."""
    export: tuple[Literal["videop2r", "trl"], ...] = ()
    """Further formats to write beside the Parquet dataset; those of an earlier run are brought up
    to date anyway.
    """
    card_copy: bool = False
    """Copy the data card to data_cards/ in the working folder."""

    @model_validator(mode="after")
    def _options_that_need_each_other(self) -> "BuildConfig":
        if self.check_decode and not self.check:
            raise ValueError("--check-decode needs --check: it tells how thoroughly to check")
        if self.check and self.dry_run:
            raise ValueError("--check and --dry-run were both given; use one at a time")
        needed = [] if self.check else ["generator", "judge"]
        if not (self.check or self.dry_run):
            needed.append("output_dir")
        missing = ["--" + name.replace("_", "-") for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(
                f"a build needs {', '.join(missing)} too; "
                f"give {'it' if len(missing) == 1 else 'them'}, or --check to only look at the "
                "question file"
            )
        return self
