"""The short lesson of `sandbox.demo`: fine-tuning whose loss falls, and RL that repairs faults.

Fine-tuning begins at random weights and stops long before the model sees anything; the whole lesson
is `sandbox.learning`. RL starts from the model that ships with the sandbox: it was taught faults.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.lessons import recipe
from sandbox.lessons.folders import Folders
from sandbox.models.shipped_start import shipped_start

if TYPE_CHECKING:
    from sandbox.lessons.tables import ResultTable

PRESET = "three"
SHORT_SCHEDULE = recipe.TrainingSchedule(epochs=2, learning_rate=2e-3, warmup_steps=10)


def loss_that_falls(folders: Folders) -> str:
    """Build a dataset, fine-tune a random model on it for a few steps; its loss by step."""
    model, build, out = folders.random_model(), folders.faultless_dataset(), folders.out / "sft"
    seed = folders.config.seed
    options = recipe.fine_tune(
        model, build, folders.train, out, folders.cache, SHORT_SCHEDULE, seed=seed
    )
    folders.once("sft", "train.sft", options)
    losses = json.loads((out / "report.json").read_text("utf-8"))["curves"]["loss"]
    return ", ".join(f"step {step:.0f}: {loss:.2f}" for step, loss in losses)


def rl_folder(folders: Folders, seed: int) -> Path:
    """Folder of an RL run: its model, metrics and pages."""
    return folders.out / "rl" / f"seed_{seed}"


def reinforce(folders: Folders) -> None:
    """RL from the shipped start, once with each seed."""
    folders.render(folders.rl)
    (algo,) = folders.config.algos
    for seed in folders.config.seeds:
        options = recipe.reinforce(
            shipped_start(),
            folders.rl,
            rl_folder(folders, seed),
            folders.cache,
            algo=algo,
            steps=folders.config.rl_steps,
            seed=seed,
        )
        folders.once(f"rl seed {seed}", "train.rl", options)


def before_and_after(folders: Folders) -> "ResultTable":
    """Evaluate the start, each model after RL, and the first of them on another clip's frames."""
    from sandbox.lessons.tables import repair_table

    folders.render(folders.held_out)
    start = folders.evaluate("start", shipped_start())
    models = {seed: rl_folder(folders, seed) / "model" for seed in folders.config.seeds}
    after = {seed: folders.evaluate(f"seed {seed}", model) for seed, model in models.items()}
    first = next(iter(models))
    shuffled = folders.evaluate(f"seed {first} shuffled", models[first], shuffled=True)
    return repair_table(folders, before=start, after=after, shuffled=shuffled)
