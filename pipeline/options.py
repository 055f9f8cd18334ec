"""The options of `python -m pipeline.build_cot`; the string under each is its help."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from cli.config_class import Config
from cli.option_groups import (
    AnswerLeakOptions,
    BackendOptions,
    BlindMarkOptions,
    DecodeWorkerOptions,
    DryRunOptions,
    FrameCacheSizeOptions,
    FrameOptions,
    GeneratorOptions,
    JsonOptions,
    JudgeOptions,
    JudgeReplyOptions,
    NewTokensOptions,
    OutputOptions,
    PluginOptions,
    QuestionFileOptions,
    ReaderSamplesOptions,
    RetryFailedOptions,
    SufficiencyMarginOptions,
    TemperatureOptions,
    refuse_unreachable,
)
from pipeline.reader_steps import BlindAction
from pipeline.steps import SufficiencyFilter

ExportFormat = Literal[
    "videop2r",
    "trl",
    "questions",
    "llamafactory",
    "ms-swift",
    "verl",
    "hf-video",
    "hf-video-embedded",
]
# A resumed build may change its length, speed, budget and output formats, but nothing that decides
# what a row becomes.
MAY_CHANGE_ON_RESUME = frozenset(
    {
        "limit",
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "timeout_seconds",
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
        "json",
        "dry_run",
        "retry_failed",
        "export",
        "export_media_root",
        "card_copy",
    }
)


class BuildFolderOptions(Config, group="data"):
    """A build that exists."""

    out: Path
    """Output folder of a build."""


class BuildConfig(
    PluginOptions,
    QuestionFileOptions[Path],
    OutputOptions[Path | None],
    GeneratorOptions[str | None],
    JudgeOptions[str | None],
    JudgeReplyOptions,
    AnswerLeakOptions,
    ReaderSamplesOptions,
    BlindMarkOptions,
    SufficiencyMarginOptions,
    NewTokensOptions,
    TemperatureOptions[float | None],
    FrameOptions,
    FrameCacheSizeOptions,
    DecodeWorkerOptions,
    BackendOptions,
    DryRunOptions,
    JsonOptions,
    RetryFailedOptions,
    defaults={"output_dir": None, "generator": None, "judge": None, "temperature": None},
    renamed={"call_timeout_seconds": "timeout_seconds"},
    notes={
        "json": "What --check found: format, counts, and the first row as read.",
        "dry_run": "Here its cost: calls, tokens and dollars by step; nothing paid is sent.",
        "limit": "A later run may raise it and goes on.",
        "max_new_tokens": "A truncated trace is requested again at most twice, then rejected.",
        "temperature": "Applies to the teacher.",
    },
    group="judge",
    groups={
        "retry_base_seconds": "speed",
        "retry_cap_seconds": "speed",
        "batch": "money",
        "batch_linger_seconds": "speed",
        "batch_poll_seconds": "speed",
        "check": "data",
        "check_decode": "data",
        "export": "output",
        "export_media_root": "output",
        "card_copy": "output",
    },
    example="--questions q.json --media-root clips --generator claude:claude-sonnet-5-5 "
    "--judge claude:claude-haiku-5-5 --max-cost-usd 5 --output-dir out/build",
):
    """Options of `python -m pipeline.build_cot`."""

    attempts: int = Field(1, ge=1)
    """Attempts per question until one passes all steps (rejection sampling)."""
    blind_filter: str | None = None
    """Text-only reader that answers each question without its video before the teacher is paid, to
    find those that do not need it: claude:MODEL, openai:MODEL@URL, local:PATH_OR_HUB_ID, or
    oracle:SEED (sandbox only). Asked with --judge-max-tokens and --judge-temperature."""
    blind_action: BlindAction = "mark"
    """What happens to a question that is answered without its video: mark it (`answerable_blind` in
    the dataset), or reject it before the teacher is paid."""
    sufficiency: SufficiencyFilter = "judge"
    """What makes an observation sufficient: the judge's verdict, or that the reader of
    --blind-filter answers from the observation alone, at a rate above its blind rate; or both."""
    threshold: float = Field(0.6, ge=0, le=1)
    """Least answer score that passes verification (VideoP2R: 0.6)."""
    retry_base_seconds: float = Field(0.5, gt=0)
    """First wait before a failed call is tried again; doubles each time, with jitter."""
    retry_cap_seconds: float = Field(60, gt=0)
    """Longest wait between tries; a server's Retry-After may be longer."""
    batch: bool = False
    """Use the Message Batches API of claude: backends: half the price, within a day."""
    batch_linger_seconds: float = Field(10, gt=0)
    """How long a batch waits for more requests before it is sent, in seconds."""
    batch_poll_seconds: float = Field(30, gt=0)
    """How often the state of a running batch is requested, in seconds."""

    check: bool = False
    """Only read the question file and check every path: how many rows are unusable, and why."""
    check_decode: bool = False
    """With --check, decode every file too (slow; fills the frame cache)."""
    export: tuple[ExportFormat, ...] = ()
    """Further formats to write beside the Parquet dataset; formats of earlier runs are updated."""
    export_media_root: Path | None = None
    """Folder of the media on the machine that trains, if it is not --media-root: for ms-swift, verl
    and hf-video, whose paths are absolute."""
    card_copy: bool = False
    """Copy the data card to data_cards/ in the working folder."""

    @model_validator(mode="after")
    def _options_that_need_each_other(self) -> "BuildConfig":
        if self.check_decode and not self.check:
            raise ValueError("--check-decode needs --check: it makes the check more thorough")
        if self.json and not self.check:
            raise ValueError("--json needs --check: it prints what the check found")
        if self.check and self.dry_run:
            raise ValueError("--check and --dry-run were both given; use one at a time")
        if self.export_media_root is not None and not self.export_media_root.is_absolute():
            raise ValueError(
                f"--export-media-root {self.export_media_root} is relative, and exports hold it as "
                "it is on another machine; give an absolute path"
            )
        needed = [] if self.check else ["generator"]
        if not self.check and self.sufficiency != "answer":
            needed.append("judge")
        if not self.check and self.sufficiency != "judge" and self.blind_filter is None:
            raise ValueError(
                f"--sufficiency {self.sufficiency} needs --blind-filter too: the reader that "
                "answers without the video, and then from the observation"
            )
        if self.sufficiency == "answer" and self.judge is not None:
            raise ValueError(
                f"--judge {self.judge} would not be asked with --sufficiency answer; leave it out, "
                "or give --sufficiency both"
            )
        if self.blind_filter is None and (self.blind_action == "reject" or self.blind_correct):
            raise ValueError(
                "--blind-action and --blind-correct need --blind-filter too: who answers without "
                "the video"
            )
        refuse_unreachable(self.blind_correct, self.blind_samples)
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
