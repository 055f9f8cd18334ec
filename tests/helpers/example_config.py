"""A command with one field of every kind, and its reading."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, model_validator

from cli.config import (
    Config,
    UsageError,
    read_config,
)


class ExampleConfig(Config):
    """A command with one field of every kind."""

    questions: Path
    """Question file; 100 % of it is read."""
    output_dir: Path
    """Folder for what comes out."""
    reader: Literal["decord", "pyav"] = "decord"
    """Video reader."""
    threshold: float = Field(0.6, ge=0, le=1)
    """Lowest metric that passes."""
    decode_timeout_seconds: float = Field(60, gt=0)
    """Time that one file may take to decode."""
    max_cost_usd: float | None = Field(None, gt=0)
    """Money to spend at most."""
    strip_prefix: tuple[str, ...] = ()
    """Path prefixes to drop."""
    span: tuple[int, int] = (3, 4)
    """Two numbers."""
    batch: bool = False
    """Use the batch API."""
    limit: int | None = Field(None, ge=1)
    """Questions to take."""
    judge: str = "claude:m"
    """Who judges."""

    @model_validator(mode="after")
    def _batch_needs_a_budget(self) -> "ExampleConfig":
        if self.batch and self.max_cost_usd is None:
            raise ValueError("--batch needs --max-cost-usd: a batch cannot be recalled once sent")
        return self


REQUIRED = ["--questions", "q.json", "--output-dir", "out"]


def read(*argv: str) -> ExampleConfig:
    return read_config(ExampleConfig, argv, prog="p2r.example", description="An example.")


def sentence(*argv: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(*argv)
    return str(caught.value)
