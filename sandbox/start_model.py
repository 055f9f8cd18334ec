"""`python -m sandbox.start_model --out DIR`: teach the model with planted faults that ships.

A random model of 1 M parameters learns a world of three objects per clip from a faultless teacher,
then from one that takes green for yellow and circles for squares and concludes times and numbers
one too high. That is the start from which `make demo` shows what RL repairs. Everything goes to
`DIR/learning`, by the commands of `sandbox.learning`; the model for shipping, with its recipe and
hash, to `DIR/model`: copy its files to `sandbox/models/start`. Some ten minutes on two cores; the
same command again resumes.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cli.config import EXIT_OK, parse_command, print_config, require_packages, run_command
from cli.option_groups import OutputOptions, SeedOptions
from sandbox.learning import clean_model, noisy_model
from sandbox.lessons import recipe
from sandbox.lessons.folders import Folders, LearningConfig
from sandbox.lessons.short_lesson import PRESET
from sandbox.lessons.stages import StageFailedError, Stages
from train.early_checks import TRAINING_PACKAGES

PROG = "sandbox.start_model"


class StartModelConfig(
    OutputOptions[Path],
    SeedOptions,
    defaults={"output_dir": Path("out/start_model")},
    example="--output-dir out/start_model",
):
    """Options of `sandbox.start_model`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Teach, plant, pack, measure."""
    config = parse_command(
        StartModelConfig,
        argv,
        prog=PROG,
        description="Teach the small model with planted faults from which the demo's RL starts.",
    )
    require_packages(*TRAINING_PACKAGES)
    print_config(config)
    folders = Folders(
        LearningConfig(
            output_dir=config.output_dir / "learning",
            seed=config.seed,
            train_questions=4000,
            faulty_questions=2400,
            evaluation_questions=500,
            rl_steps=40,
            seeds=(config.seed,),
        ),
        PRESET,
    )
    folders.claim()
    stages = Stages(3)
    try:
        with stages.stage("a faultless teacher"):
            clean = clean_model(folders)
        with stages.stage("a teacher with systematic faults"):
            start = noisy_model(folders)
        with stages.stage("pack, and measure on held-out clips"):
            packed = _pack(folders, start, config.output_dir / "model")
            files = {
                "taught without faults": folders.evaluate("sft", clean),
                "start": folders.evaluate("packed", packed),
            }
    except StageFailedError as error:
        return error.status
    print(_measures(folders, files))
    print(f"model: {packed}")
    return EXIT_OK


def _pack(folders: Folders, start: Path, out: Path) -> Path:
    from sandbox.models.shipped_start import pack

    pack(start, out, _recipe(folders.config))
    return out


def _recipe(config: LearningConfig) -> dict[str, Any]:
    """How the model came about, for the file beside it."""
    from sandbox.world.clips import NOTICE

    return {
        "what": f"a model of 1 M parameters with planted faults ({NOTICE})",
        "command": f"python -m {PROG} --seed {config.seed}",
        "world": {"preset": PRESET, "train_questions": config.train_questions},
        "teacher": recipe.TEACHER,
        "teacher_with_faults": recipe.NOISY_TEACHER,
        "faulty_questions": config.faulty_questions,
        "schedules": {
            "clean": vars(recipe.CLEAN_SCHEDULE),
            "faulty": vars(recipe.NOISY_SCHEDULE),
        },
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "license": "Apache-2.0",
    }


def _measures(folders: Folders, files: dict[str, Path]) -> str:
    from sandbox.lessons.observation_measures import judge_file, measure, percent
    from sandbox.world.rendered import RenderedWorld

    world = RenderedWorld(folders.held_out.root)
    lines = [f"{'on held-out clips, %':22} {'right':>6} {'sufficient':>10} {'seen':>6}"]
    for name, file in files.items():
        found = measure(judge_file(file, world))
        lines.append(
            f"{name:22} {percent(found.right):>6} {percent(found.sufficient):>10}"
            f" {percent(found.seen):>6}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(PROG, main)
