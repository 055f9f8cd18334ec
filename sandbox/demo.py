"""`python -m sandbox.demo` (`make demo`): clips, a dataset, its audit, and a model that learns.

Renders a small scripted world, builds a chain-of-thought dataset from it with the oracle as teacher
and judge (no network, no key, no model), shows the funnel, loads the dataset, and audits the judge
against the known truth. Teacher and judge err on purpose, so that every step of the funnel has
something to reject and the audit something to find.

Then a video model of 1 M parameters is trained from random weights on a dataset of a simpler world:
fine-tuning, evaluation before and after, then RL, with a page of its rollouts. It is the short form
of `sandbox.learning`. The same command again resumes.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator

from cli.config import EXIT_OK, parse_command, run_command
from cli.option_groups import GeneratorOptions, JudgeOptions, OutputOptions, SeedOptions
from cli.output_folder import claim_folder
from sandbox.learning import rl_folder, run_rl, run_sft
from sandbox.lessons.folders import Folders, LearningConfig, TrainingSizeOptions
from sandbox.lessons.stages import StageFailedError, Stages, run
from sandbox.option_groups import WorldSizeOptions
from sandbox.world.clips import NOTICE

PROG = "sandbox.demo"
_SHOWN_ROWS = 2
_STAGES_OF_DATA, _STAGES_OF_LEARNING = 5, 2
_HELD_OUT_QUESTIONS = 240
_ALGO = "pa-grpo+appo"


class DemoConfig(
    OutputOptions[Path],
    WorldSizeOptions,
    SeedOptions,
    GeneratorOptions[str],
    JudgeOptions[str],
    TrainingSizeOptions,
    defaults={
        "output_dir": Path("out/demo"),
        "generator": "oracle:7,wrong=0.15,insufficient=0.1,malformed=0.05,leak=0.05",
        "judge": "oracle:7,false_yes=0.2,false_no=0.05",
        "train_questions": 1200,
        "rl_steps": 30,
    },
    notes={
        "output_dir": "The world goes to `world/`, the build to `cot/`, the audit of its judge to "
        "`audit/`, the trained model to `learning/`.",
        "generator": "Its faults are planted.",
        "judge": "Its errors are planted; the audit has to find them.",
    },
):
    """Options of `sandbox.demo`."""

    audit_size: int = Field(150, ge=1)
    """Verdicts of the judge to audit."""
    learning: bool = True
    """Also train the model; without, the demo ends with the audit, after a minute."""

    @field_validator("clips")
    @classmethod
    def _has_a_clip(cls, clips: int) -> int:
        if clips < 1:
            raise ValueError("a demo without clips has nothing to show; give at least 1")
        return clips


def main(argv: Sequence[str] | None = None) -> int:
    """Data, audit, learning; each stage is titled and timed."""
    config = parse_command(
        DemoConfig, argv, prog=PROG, description="Clips to dataset to a model that learned."
    )
    claim_folder(config.output_dir, PROG)
    started = time.monotonic()
    print(f"Demo ({NOTICE}; teacher and judge are scripted)")
    stages = Stages(_STAGES_OF_DATA + (_STAGES_OF_LEARNING if config.learning else 0))
    try:
        made = _data(config, stages)
        if config.learning:
            made |= _learning(config, stages)
    except StageFailedError as error:
        return error.status
    print(f"\nDone in {time.monotonic() - started:.0f} s")
    for name, path in made.items():
        print(f"  {name:9} {path}")
    return EXIT_OK


def _data(config: DemoConfig, stages: Stages) -> dict[str, Path]:
    """From clips to an audited dataset. Returns the paths to print."""
    world, build = config.output_dir / "world", config.output_dir / "cot"
    audit = config.output_dir / "audit"
    with stages.stage(f"render {config.clips} clips, {config.stills} stills, their questions"):
        run("sandbox.clips", "--out", world, *_sizes(config))
    with stages.stage("generate, verify and judge; export the dataset"):
        run("pipeline.build_cot", *_build_options(config, world, build))
    with stages.stage("the funnel: what became of each question"):
        run("pipeline.status", build)
    with stages.stage("load the dataset with `datasets`"):
        _show_dataset(build / "dataset", config.output_dir / "datasets_cache")
    with stages.stage("audit the judge: rows drawn blind, labels from the truth, leak probes"):
        print(f"the judge is {config.judge}: its error rates are planted, find them below")
        _audit(config, world, build, audit)
    return {
        "dataset": build / "dataset",
        "card": build / "README.md",
        "ledger": build / "cot.duckdb",
        "audit": audit / "report.html",
        "clips": world / "videos",
    }


def _learning(config: DemoConfig, stages: Stages) -> dict[str, Path]:
    """From random weights to a model after RL. Returns the paths to print."""
    folders = Folders(
        LearningConfig(
            output_dir=config.output_dir / "learning",
            seed=config.seed,
            train_questions=config.train_questions,
            evaluation_questions=min(_HELD_OUT_QUESTIONS, config.train_questions),
            faulty_questions=config.train_questions,
            algos=(_ALGO,),
            seeds=(config.seed,),
            rl_steps=config.rl_steps,
        )
    )
    folders.claim()
    with stages.stage("a video model learns from random weights: vision warm-up, fine-tuning"):
        print(run_sft(folders).text)
    with stages.stage(f"{config.rl_steps} steps of {_ALGO} from there; evaluation, the page"):
        print(run_rl(folders, has_label_noise=False).text)
    out = rl_folder(folders, _ALGO, config.seed)
    return {"model": out / "model", "rollouts": out / "pages", "metrics": out / "metrics.jsonl"}


def _sizes(config: DemoConfig) -> list[str]:
    return [
        *("--clips", str(config.clips), "--stills", str(config.stills)),
        *("--num-questions", str(config.num_questions), "--seed", str(config.seed)),
    ]


def _build_options(config: DemoConfig, world: Path, build: Path) -> list[str]:
    return [
        *("--questions", str(world / "questions.json"), "--media-root", str(world)),
        *("--generator", config.generator, "--judge", config.judge),
        *("--frame-cache", str(config.output_dir / "frames"), "--out", str(build)),
    ]


def _audit(config: DemoConfig, world: Path, build: Path, audit: Path) -> None:
    """Draw a sample, label it from the known truth, run the judge again, report."""
    labels = config.output_dir / "truth_labels.jsonl"
    size = ("--size", str(config.audit_size), "--max-per-video", "20")
    run("judges.audit", "sample", audit, "--build", build, *size)
    run("sandbox.truth_labels", audit, "--media-root", world, "--out", labels)
    run("judges.audit", "label", audit, "--import", labels)
    run("judges.audit", "run", audit, "--judge", config.judge, "--probes", "--media-root", world)
    run("judges.audit", "report", audit)


def _show_dataset(folder: Path, cache: Path) -> None:
    """Load the Parquet files as a user of `datasets` would, and print some rows."""
    from datasets import load_dataset

    files = sorted(str(path) for path in folder.glob("*.parquet"))
    print(f'>>> load_dataset("parquet", data_files="{folder}/*.parquet", split="train")')
    dataset = load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache))
    print(dataset)
    for row in dataset.select(range(min(_SHOWN_ROWS, len(dataset)))):
        print()
        for name in ("problem", "solution", "path", "output", "reward", "judge_reply"):
            print(f"  {name}: {row[name]}")


if __name__ == "__main__":
    run_command(PROG, main)
