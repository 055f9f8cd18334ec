"""The options of `python -m train.evaluate`; the string under each is its help."""

from pathlib import Path

from pydantic import Field, model_validator

from cli.option_groups import (
    AttentionOptions,
    BackendOptions,
    BatchSizeOptions,
    BlindMarkOptions,
    DecodeWorkerOptions,
    DtypeOptions,
    FrameCacheSizeOptions,
    FrameOptions,
    ModelOptions,
    NewTokensOptions,
    OutputOptions,
    PluginOptions,
    PredictionsOptions,
    QuestionFileOptions,
    ReaderSamplesOptions,
    RetryFailedOptions,
    RolloutServerOptions,
    RopePositionOptions,
    SeedOptions,
    TemperatureOptions,
    TemplateOptions,
    refuse_unreachable,
)
from schemas.traces import TEMPLATES

# A resumed evaluation may change how much is done, how fast, and what is reported; never an answer.
MAY_CHANGE_ON_RESUME = frozenset(
    {
        "plugin",
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
        "answer_extractor",
        "blind",
        "blind_samples",
        "blind_correct",
        "page_rows",
        "page_megabytes",
        "concurrency",
        "timeout_seconds",
        "requests_per_minute",
        "tokens_per_minute",
        "local_batch_size",
        "api_key_env",
        "max_cost_usd",
        "prices",
        "retry_failed",
        "vllm_url",
        "vllm_timeout_seconds",
        "trainer_host",
    }
)


class EvaluateConfig(
    ModelOptions[str | None],
    QuestionFileOptions[Path | None],
    PredictionsOptions[Path | None],
    OutputOptions[Path | None],
    TemplateOptions,
    FrameOptions,
    RopePositionOptions,
    DecodeWorkerOptions,
    FrameCacheSizeOptions,
    TemperatureOptions[float],
    NewTokensOptions,
    SeedOptions,
    BatchSizeOptions[int],
    DtypeOptions,
    AttentionOptions,
    RolloutServerOptions,
    BackendOptions,
    RetryFailedOptions,
    ReaderSamplesOptions,
    BlindMarkOptions,
    PluginOptions,
    defaults={
        "model": None,
        "questions": None,
        "media_root": None,
        "predictions": None,
        "output_dir": None,
        "template": "",
        "frames": "uniform:32",
        "max_pixels": 256 * 28 * 28,
        "temperature": 0.01,
        "batch_size": 8,
    },
    renamed={
        "reader": "observation_reader",
        "video_reader": "video_decoder",
        "call_timeout_seconds": "timeout_seconds",
    },
    choices={"template": lambda: ("", *TEMPLATES)},
    notes={
        "model": "It sees the video of each question and answers.",
        "predictions": "They are scored instead of a model's; with --media-root the page shows "
        "their frames.",
        "output_dir": "report.json, predictions.parquet and index.html go there.",
        "template": "Adherence is measured against it. Without it: of --model the one that its "
        "folder keeps (p2r where it keeps none), of --observation-reader think-answer, of "
        "--predictions the one that most replies follow.",
        "limit": "A later run may raise it and goes on.",
        "seed": "Each question has a random state of its own.",
        "temperature": "0.01 as in VideoP2R (near-greedy).",
        "batch_size": "Halved for the rest of the run where memory runs out.",
        "concurrency": "Calls of --observation-reader and --extractor; with --rollouts vllm also "
        "questions that the server is asked at once.",
        "rollouts": "With vllm, --model is sent to the server first.",
        "device": "Of --model too.",
    },
    group="judge",
    groups={
        "observations_from": "data",
        "compare": "data",
        "shuffle_videos": "data",
        "top_p": "model",
        "top_k": "model",
        "repetition_penalty": "model",
        "page_rows": "output",
        "page_megabytes": "output",
    },
    example="--model out/sft --questions held_out.json --media-root clips --output-dir out/scores",
):
    """Options of `train.evaluate`."""

    observations_from: Path | None = None
    """Text-only transfer: a predictions.parquet whose observations --observation-reader is given in
    the place of the video."""
    observation_reader: str | None = None
    """Language model that answers from observations: claude:MODEL, openai:MODEL@URL, or a local
    one, by its folder or hub id."""
    shuffle_videos: bool = False
    """Control: show the frames of another clip of the question file, the same one in every run with
    the same --seed. A model that looks falls to the level of guessing."""
    top_p: float = Field(0.001, gt=0, le=1)
    """Nucleus sampling, 0.001 as in VideoP2R."""
    top_k: int = Field(0, ge=0)
    """Sample from this number of most probable tokens; 0 from all. APPO decodes with 1."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1, tokens of the prompt and of the answer so far become less likely. APPO: 1.05."""
    compare: Path | None = None
    """Answers of another run to the same questions: McNemar's tests and the difference with its
    interval."""
    extractor: str | None = None
    """Language model that reads what a reasoning concludes, for think-answer mismatch by the
    paper's rule: claude:MODEL, openai:MODEL@URL or local:PATH. Without one, rules do it."""
    extractor_max_tokens: int = Field(512, ge=1)
    """Longest reply of --extractor and --answer-extractor, in tokens."""
    answer_extractor: str | None = None
    """Language model that reads which answer a reply states, where rules read none:
    claude:MODEL, openai:MODEL@URL or local:PATH. It does not see the gold answer; its scores stand
    beside the strict and the tolerant ones."""
    blind: str | None = None
    """Text-only reader that is asked every question without its video: every score is then also
    shown for the questions that need the video and for those that it answers. claude:MODEL,
    openai:MODEL@URL, local:PATH or oracle:SEED (sandbox only)."""
    page_rows: int = Field(300, ge=0)
    """Most answers that index.html shows, spread evenly over all of them."""
    page_megabytes: float = Field(24, ge=0)
    """Room for frames in index.html, in MB; answers beyond it are shown without frames."""

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
            needed = {"--observation-reader": self.observation_reader}
        if self.predictions is None:
            needed["--output-dir"] = self.output_dir
        if missing := [name for name, value in needed.items() if value is None]:
            raise ValueError(f"{given[0]} needs {', '.join(missing)} too")
        asked = {
            "--extractor": self.extractor,
            "--answer-extractor": self.answer_extractor,
            "--blind": self.blind,
        }
        for name, spec in asked.items():
            if spec is not None and self.output_dir is None:
                raise ValueError(f"{name} needs --output-dir too: its calls are kept there")
        if self.blind is None and self.blind_correct is not None:
            raise ValueError("--blind-correct needs --blind too: who answers without the video")
        refuse_unreachable(self.blind_correct, self.blind_samples)
        belongs = {
            "--questions": (self.questions, "--model"),
            "--shuffle-videos": (self.shuffle_videos or None, "--model"),
            "--observation-reader": (self.observation_reader, "--observations-from"),
            "--rollouts vllm": (self.rollouts == "vllm" or None, "--model"),
        }
        for name, (value, source) in belongs.items():
            if value is not None and source != given[0]:
                raise ValueError(f"{name} belongs to {source}, but {given[0]} was given")
        return self

    @model_validator(mode="after")
    def _server_where_one_answers(self) -> "EvaluateConfig":
        if self.rollouts == "vllm" and self.vllm_url is None:
            raise ValueError(
                "--rollouts vllm asks a vLLM server for answers: give its address by --vllm-url, "
                "such as http://127.0.0.1:8000 (docs/guides/vllm_rollouts.md)"
            )
        for name, value in {
            "--vllm-url": self.vllm_url,
            "--trainer-host": self.trainer_host,
        }.items():
            if self.rollouts != "vllm" and value is not None:
                raise ValueError(f"{name} needs --rollouts vllm")
        return self

    def decoding(self) -> str:
        """How tokens are sampled, as text."""
        limit = f"at most {self.max_new_tokens} tokens"
        if self.repetition_penalty != 1:
            limit = f"repetition penalty {self.repetition_penalty:g}, {limit}"
        if self.rollouts == "vllm":
            limit += ", by a vLLM server"
        if not self.temperature:
            return f"greedy, {limit}"
        kept = f"top_k {self.top_k}, " if self.top_k else ""
        return (
            f"temperature {self.temperature:g}, top_p {self.top_p:g}, {kept}seed {self.seed}, "
            f"{limit}"
        )


def backend_specs(config: EvaluateConfig) -> dict[str, str | None]:
    """The language models that are asked besides --model, by their options."""
    return {
        "--observation-reader": reader_spec(config),
        "--extractor": config.extractor,
        "--blind": config.blind,
        "--answer-extractor": config.answer_extractor,
    }


def reader_spec(config: EvaluateConfig) -> str | None:
    """--observation-reader as a backend: a plain folder or hub id is a model in this process."""
    reader = config.observation_reader
    return reader if reader is None or ":" in reader else f"local:{reader}"
