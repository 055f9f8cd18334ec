"""Options of `sandbox.learning`, and the layout of its output folder."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from cli.config import Config, refuse_changed_options, save_config
from cli.option_groups import OutputOptions, SeedOptions
from cli.output_folder import claim_folder
from sandbox.lessons import recipe
from sandbox.lessons.recipe import World
from sandbox.lessons.stages import Spent, run_once
from sandbox.models.tiny_models import ModelFamilyOptions

Part = Literal["sft", "rl", "frames", "grounding"]
PARTS: tuple[Part, ...] = ("sft", "rl", "frames", "grounding")
_TRAINING = ("train.sft", "train.rl")
_MAY_CHANGE_ON_RESUME = frozenset({"parts", "algos", "seeds"})


class TrainingSizeOptions(Config, group="training"):
    """How much a small model is trained."""

    train_questions: int = Field(4000, ge=100)
    """Questions to fine-tune on, each about a clip of its own."""
    rl_steps: int = Field(60, ge=1)
    """Steps of each RL run: 8 questions, 8 rollouts each."""
    evaluation_questions: int = Field(500, ge=50)
    """Questions to evaluate on, two about each of other clips."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Seeds of RL: each algorithm runs once with each, from the same start."""


class LearningConfig(
    OutputOptions[Path],
    ModelFamilyOptions,
    SeedOptions,
    TrainingSizeOptions,
    defaults={"output_dir": Path("out/learning"), "family": "qwen2.5-vl"},
    renamed={"held_out_questions": "evaluation_questions"},
    notes={"seed": "RL has --seeds of its own."},
    group="training",
    example="--parts sft rl --output-dir out/learning",
):
    """Options of `sandbox.learning`."""

    parts: tuple[Part, ...] = PARTS
    """What to run: sft, rl, frames, grounding."""
    faulty_questions: int = Field(2400, ge=100)
    """How many of the training questions are answered with systematic label noise, to make the
    start of RL."""
    algos: tuple[str, ...] = ("pa-grpo+appo", "grpo", "dapo")
    """Algorithms of RL, as for train.rl."""

    @field_validator("family")
    @classmethod
    def _is_a_video_model(cls, family: str) -> str:
        if family == "llama":
            raise ValueError("a llama sees no video; give qwen2.5-vl, qwen3-vl or qwen3.5")
        return family


class Folders:
    """The layout of the output folder, and which commands have finished.

    With `log` only training prints on the terminal; the output of all other commands goes there.
    """

    def __init__(
        self, config: LearningConfig, preset: str = "tiny", log: Path | None = None
    ) -> None:
        self.out, self.config, self._log = config.output_dir, config, log
        self.cache = self.out / "frames"
        questions = config.train_questions
        self.train = World(self.out / "train_world", questions, questions, config.seed, preset)
        held_out = config.evaluation_questions
        self.held_out = World(self.out / "held_out_world", held_out // 2, held_out, 1000, preset)
        asked = 8 * config.rl_steps
        self.rl = World(self.out / "rl_world", asked, asked, 2000, preset)

    def claim(self, prog: str = "sandbox.learning") -> None:
        """Create or resume the output folder of the command `prog`.

        Raises UsageError if its run had other options.
        """
        saved = self.out / "config.json"
        if claim_folder(self.out, prog):
            refuse_changed_options(self.config, saved, _MAY_CHANGE_ON_RESUME)
        save_config(self.config, saved)

    def once(self, name: str, module: str, options: recipe.Options) -> Spent:
        """Run a command unless it finished before. Returns its time."""
        log = None if module in _TRAINING else self._log
        return run_once(self.out / "done" / f"{name}.json", module, *options, log=log)

    def render(self, *worlds: World) -> None:
        """Render the worlds that do not exist yet."""
        for world in worlds:
            self.once(world.root.name, "sandbox.clips", recipe.clips(world))

    def evaluate(
        self, name: str, model: Path, *, shuffled: bool = False, template: str = "p2r"
    ) -> Path:
        """Evaluate on the held-out world. Returns the predictions file."""
        out = self.out / "evaluations" / name.replace(" ", "_")
        options = recipe.evaluate(
            model, self.held_out, out, self.cache, shuffled=shuffled, template=template
        )
        self.once(f"evaluate {name}", "train.evaluate", options)
        return out / "predictions.parquet"

    def random_model(self) -> Path:
        """A model of random weights."""
        model = self.out / "random"
        family = ["--family", self.config.family, "--model-preset", "learner"]
        options = [*family, "--out", str(model), "--seed", str(self.config.seed)]
        self.once("random", "sandbox.tiny_model", options)
        return model

    def faultless_dataset(self) -> Path:
        """The build of a faultless teacher about the training world, which is rendered first."""
        self.render(self.train)
        build, limit = self.out / "cot", self.config.train_questions
        options = recipe.build(self.train, build, self.cache, has_label_noise=False, limit=limit)
        self.once("build", "pipeline.build_cot", options)
        return build
