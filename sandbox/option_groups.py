"""Options that several commands of the synthetic world share; see `cli.option_groups`.

    class ClipsConfig(OutputOptions[Path], WorldSizeOptions, WorldPresetOptions, SeedOptions):

Options that `sandbox.lessons` or `sandbox.models` need too are declared in those packages, which
may not import this file.
"""

from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import Field

from cli.config import Config

P = TypeVar("P", Path, Path | None)

OUTPUT_FILE_ALIASES = {"output_file": ("--out",)}


class QuestionCountOptions(Config, renamed={"questions": "num_questions"}, group="data"):
    """How many questions are asked."""

    num_questions: int = Field(300, ge=1)
    """Questions to ask."""


class ClipCountOptions(Config, group="data"):
    """How many clips are drawn."""

    clips: int = Field(60, ge=0)
    """Video clips to draw."""


class WorldSizeOptions(ClipCountOptions, QuestionCountOptions, group="data"):
    """How large a rendered world is."""

    stills: int = Field(20, ge=0)
    """Still images to render."""


class WorldPresetOptions(Config, group="data"):
    """Which world is drawn."""

    preset: Literal["full", "tiny", "three"] = "full"
    """World: `full` has 8 s, 112 x 112 pixels and all kinds of questions; `tiny` has 4 s and 56 x
    56 pixels, for a model of 1 M parameters; `three` is `tiny` with three objects in every clip."""


class TrainingStepsOptions(Config, group="training"):
    """How long a small model is trained."""

    steps: int = Field(250, ge=1)
    """Training steps; the same number and seed give the same weights on the same machine."""


class OutputFileOptions(Config, Generic[P], group="output"):
    """Where measures or labels go."""

    output_file: P
    """File to write: JSON for measures, JSON Lines for labels."""
