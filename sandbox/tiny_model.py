"""`python -m sandbox.tiny_model --out DIR`: save a small random model.

The models are built in `sandbox.models.tiny_models`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from cli.config import EXIT_OK, parse_command, require_packages, run_command
from cli.option_groups import OutputOptions, SeedOptions
from cli.output_folder import claim_folder, full_disk_is_told, left_as_it_was
from sandbox.models.tiny_models import (
    LEARNER_SIZE,
    ModelFamilyOptions,
    TinySize,
    save_tiny_model,
)

__all__ = ["TinyModelConfig", "main", "save_tiny_model"]

PROG = "sandbox.tiny_model"


class TinyModelConfig(
    OutputOptions[Path],
    ModelFamilyOptions,
    SeedOptions,
    renamed={"preset": "model_preset"},
    group="model",
    example="--family qwen2.5-vl --output-dir out/tiny",
):
    """Options of `python -m sandbox.tiny_model`."""

    model_preset: Literal["random", "learner"] = "random"
    """`learner`: 1 M parameters and a tokenizer of the sandbox's own prompts and traces, to be
    trained from random weights (`python -m sandbox.learning`); its size is fixed."""
    width: int = Field(64, ge=32, multiple_of=32)
    """Width of the hidden states, a multiple of 32."""
    layers: int = Field(2, ge=1)
    """Number of transformer layers of the language model."""

    @model_validator(mode="after")
    def _learner_has_its_size(self) -> "TinyModelConfig":
        if self.model_preset == "learner" and self.model_fields_set & {"width", "layers"}:
            raise ValueError(
                "--model-preset learner has a fixed size; leave out --width and --layers"
            )
        return self


def main(argv: Sequence[str] | None = None) -> int:
    """Build and save the model."""
    config = parse_command(
        TinyModelConfig,
        argv,
        prog=PROG,
        description="Save a small random model with tokenizer, chat template and processor.",
    )
    require_packages("torch", "transformers")
    with left_as_it_was(config.output_dir, PROG):
        claim_folder(config.output_dir, PROG)
        with full_disk_is_told(config.output_dir):
            _save(config)
    print(f"a random {config.family} model (it answers nonsense) is in {config.output_dir}")
    return EXIT_OK


def _save(config: TinyModelConfig) -> None:
    size, tokenizer = TinySize(width=config.width, layers=config.layers), None
    if config.model_preset == "learner":
        from sandbox.models.learner_tokenizer import learner_tokenizer

        size, tokenizer = LEARNER_SIZE, learner_tokenizer()
    save_tiny_model(
        config.family, config.output_dir, size=size, tokenizer=tokenizer, seed=config.seed
    )


if __name__ == "__main__":
    run_command(PROG, main)
