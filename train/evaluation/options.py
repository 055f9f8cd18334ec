"""The options of `python -m train.evaluate`; the string under each is its help."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from schemas.config import Config
from schemas.traces import TEMPLATES

# What a resumed evaluation may change: how far, how fast, and what is told; never an answer.
MAY_CHANGE_ON_RESUME = frozenset(
    {
        "limit",
        "batch_size",
        "device",
        "frame_cache",
        "frame_cache_gb",
        "decode_workers",
        "decode_timeout_seconds",
        "compare",
        "extractor",
        "extractor_max_tokens",
        "page_rows",
        "page_megabytes",
        "concurrency",
        "call_timeout_seconds",
        "local_batch_size",
        "api_key_env",
        "max_cost_usd",
        "prices",
        "retry_failed",
    }
)

FormatName = Literal[
    "auto", "video-r1", "videop2r", "nextgqa", "perception-test", "seed-bench-r1", "jsonl"
]


class EvaluateConfig(Config):
    """Options of `train.evaluate`."""

    model: str | None = None
    """Checkpoint to evaluate, a folder or hub id: it sees the video of each question and answers.
    """
    questions: Path | None = None
    """Question file: JSON, JSONL or CSV, gzipped or not, in one of the formats of --format."""
    media_root: Path | None = None
    """Folder under which every path of the question file lies; nothing outside it is opened."""
    predictions: Path | None = None
    """Score answers that exist instead: JSON Lines of {question, ground_truth, model_output}, or a
    predictions.parquet of this command. With --media-root the page shows their frames."""
    observations_from: Path | None = None
    """Text-only transfer instead: a predictions.parquet whose observations --reader is given in
    the place of the video."""
    reader: str | None = None
    """Who answers from observations: claude:MODEL, openai:MODEL@URL, or a local model, by its
    folder or hub id."""
    output_dir: Path | None = None
    """Folder for report.json, predictions.parquet and index.html. The same command with the same
    folder resumes."""

    format: FormatName = "auto"
    """Layout of the question file; auto looks at its content."""
    strip_prefix: tuple[str, ...] = ()
    """Leading parts to cut off the file's paths, for files that hold somebody else's absolute
    paths."""
    follow_symlinks: bool = False
    """Follow symbolic links that lead out of the media root (hub caches are made of them)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first N questions or answers; a later run may raise it and goes on."""
    template: str = ""
    """Trace template that the model is asked for and that adherence is measured against: p2r,
    think-answer or grounding. Without it: of --model the one whose prompt its folder keeps (p2r
    where it keeps none), of --reader think-answer, of --predictions the one that most replies
    follow."""

    frames: str = "uniform:32"
    """Which frames of a video: uniform:N, or fps:R,max=N."""
    max_pixels: int = Field(256 * 28 * 28, ge=28 * 28)
    """Largest frame, in pixels; larger ones are scaled down, none is scaled up."""
    shuffle_videos: bool = False
    """Control: show the frames of another clip of the question file, the same one in every run with
    the same --seed. A model that looks falls to the level of guessing."""
    temperature: float = Field(0.01, ge=0)
    """Sampling temperature, 0.01 as in VideoP2R (near-greedy); 0 is greedy."""
    top_p: float = Field(0.001, gt=0, le=1)
    """Nucleus sampling, 0.001 as in VideoP2R."""
    max_new_tokens: int = Field(1024, ge=1)
    """Longest answer, in tokens; a longer one is cut off and counted."""
    seed: int = Field(0, ge=0)
    """Seed of the draws of every question, and of --shuffle-videos."""
    batch_size: int = Field(8, ge=1)
    """Questions answered together; halved, for the rest of the run, where memory runs out."""
    dtype: str = "auto"
    """Number format of the weights: auto (as saved), bfloat16, float16, float32."""
    device: str = "auto"
    """Device in torch's words, for example cuda:1; auto is a GPU if there is one."""
    attention: str = "sdpa"
    """Attention implementation, as transformers names it."""
    video_reader: Literal["decord", "pyav", "decord-then-pyav"] = "decord"
    """Who decodes videos."""
    decode_timeout_seconds: float = Field(60, gt=0)
    """Time that one file may take to decode before its row becomes an error."""
    decode_workers: int = Field(2, ge=1)
    """Processes that decode."""
    frame_cache: Path | None = None
    """Folder for decoded frames, shared with builds and trainers; default ~/.cache/p2r/frames."""
    frame_cache_gb: float = Field(20, gt=0)
    """Size at which the frame cache drops what was not used for longest, in GB."""

    compare: Path | None = None
    """Answers of another run to the same questions: McNemar's tests and the difference with its
    interval."""
    extractor: str | None = None
    """Language model that reads what a reasoning concludes, for think-answer mismatch by the
    paper's rule: claude:MODEL, openai:MODEL@URL or local:PATH. Without one, rules do it."""
    extractor_max_tokens: int = Field(512, ge=1)
    """Longest reply of the extractor, in tokens."""
    concurrency: int = Field(16, ge=1)
    """Calls of --reader and --extractor in flight at most."""
    call_timeout_seconds: float = Field(300, gt=0)
    """Time that one call may take before it counts as failed and is tried again."""
    local_batch_size: int = Field(8, ge=1)
    """Requests per forward pass of a local: reader or extractor."""
    api_key_env: str | None = None
    """Environment variable whose key goes to an openai:MODEL@URL endpoint; OPENAI_API_KEY goes only
    to OpenAI's own host."""
    max_cost_usd: float | None = Field(None, gt=0)
    """Stop before calls of this folder, earlier runs included, cost more, in US dollars."""
    prices: Path | None = None
    """TOML file of prices that adds to or replaces the built-in table."""
    retry_failed: bool = False
    """Answer rows again that ended in an error, media or calls."""
    page_rows: int = Field(300, ge=0)
    """Most answers that index.html shows, spread evenly over all of them."""
    page_megabytes: float = Field(24, ge=0)
    """Room for frames in index.html, in MB; answers beyond it are shown without frames."""

    @field_validator("template")
    @classmethod
    def _is_a_template(cls, name: str) -> str:
        if name and name not in TEMPLATES:
            raise ValueError(f"no trace template {name!r}: expected one of {', '.join(TEMPLATES)}")
        return name

    @model_validator(mode="after")
    def _one_source_of_answers(self) -> "EvaluateConfig":
        sources = {
            "--model": self.model,
            "--predictions": self.predictions,
            "--observations-from": self.observations_from,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected one of {', '.join(sources)}, got {' and '.join(given) or 'none'}: they "
                "say where the answers come from"
            )
        needed: dict[str, object] = {}
        if self.model is not None:
            needed = {"--questions": self.questions, "--media-root": self.media_root}
        if self.observations_from is not None:
            needed = {"--reader": self.reader}
        if self.predictions is None:
            needed["--output-dir"] = self.output_dir
        if missing := [name for name, value in needed.items() if value is None]:
            raise ValueError(f"{given[0]} needs {', '.join(missing)} too")
        if self.extractor is not None and self.output_dir is None:
            raise ValueError("--extractor needs --output-dir too: its calls are kept there")
        belongs = {
            "--questions": (self.questions, "--model"),
            "--shuffle-videos": (self.shuffle_videos or None, "--model"),
            "--reader": (self.reader, "--observations-from"),
        }
        for name, (value, source) in belongs.items():
            if value is not None and source != given[0]:
                raise ValueError(f"{name} belongs to {source}, but {given[0]} was given")
        return self
