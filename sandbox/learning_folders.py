"""Options of `sandbox.learning`, and where what it makes lies under the output folder."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from sandbox import recipe
from sandbox.recipe import World
from sandbox.stages import Spent, run_once
from schemas.config import Config, refuse_changed_options, save_config

Part = Literal["sft", "rl", "frames", "grounding"]
PARTS: tuple[Part, ...] = ("sft", "rl", "frames", "grounding")
_MAY_CHANGE_ON_RESUME = frozenset({"parts", "algos", "seeds"})


class LearningConfig(Config):
    """Options of `sandbox.learning`."""

    output_dir: Path = Path("out/learning")
    """Folder for worlds, datasets, models, evaluations and tables."""
    parts: tuple[Part, ...] = PARTS
    """What to run: sft, rl, frames, grounding."""
    kind: Literal["qwen2.5-vl", "qwen3-vl"] = "qwen2.5-vl"
    """Family of the model."""
    seed: int = Field(0, ge=0)
    """Seed of the model's weights, the warm-up and the fine-tuning."""
    train_questions: int = Field(4000, ge=100)
    """Questions to fine-tune on, each about a clip of its own."""
    faulty_questions: int = Field(2400, ge=100)
    """How many of them the teacher with habits answers, for the start of RL."""
    held_out_questions: int = Field(500, ge=50)
    """Questions to evaluate on, two about each of other clips."""
    algos: tuple[str, ...] = ("pa-grpo+appo", "grpo", "dapo")
    """Algorithms of RL, as for train.rl."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of RL: each algorithm runs once with each, from the same start."""
    rl_steps: int = Field(60, ge=1)
    """Steps of each RL run: 8 questions, 8 rollouts each."""


class Folders:
    """Where everything lies under the output folder, and what has been done."""

    def __init__(self, config: LearningConfig) -> None:
        self.out, self.config = config.output_dir, config
        self.cache = self.out / "frames"
        questions = config.train_questions
        self.train = World(self.out / "train_world", questions, questions, config.seed)
        held_out = config.held_out_questions
        self.held_out = World(self.out / "held_out_world", held_out // 2, held_out, 1000)
        asked = 8 * config.rl_steps
        self.rl = World(self.out / "rl_world", asked, asked, 2000)

    def claim(self) -> None:
        """Make the output folder ours. Raises UsageError where it was begun with other options."""
        saved = self.out / "config.json"
        if saved.is_file():
            refuse_changed_options(self.config, saved, _MAY_CHANGE_ON_RESUME)
        save_config(self.config, saved)

    def once(self, name: str, module: str, options: recipe.Options) -> Spent:
        """Run a command unless it was done before; what it took."""
        return run_once(self.out / "done" / f"{name}.json", module, *options)

    def render(self, *worlds: World) -> None:
        """Render worlds that are not there yet."""
        for world in worlds:
            self.once(world.root.name, "sandbox.clips", recipe.clips(world))

    def evaluate(
        self, name: str, model: Path, *, shuffled: bool = False, template: str = "p2r"
    ) -> Path:
        """Evaluate on the held-out world; the predictions."""
        out = self.out / "evaluations" / name.replace(" ", "_")
        options = recipe.evaluate(
            model, self.held_out, out, self.cache, shuffled=shuffled, template=template
        )
        self.once(f"evaluate {name}", "train.evaluate", options)
        return out / "predictions.parquet"
