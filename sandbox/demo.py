"""`python -m sandbox.demo` (`make demo`): clips, a dataset, its audit, and RL that visibly repairs.

Renders a small scripted world, builds a chain-of-thought dataset from it with the oracle as teacher
and judge (no network, no key, no model), shows the funnel, loads the dataset, and audits the judge
against the known truth. Teacher and judge err on purpose, so that every step of the funnel has
something to reject and the audit something to find.

Then video models of 1 M parameters learn, in a world of three objects per clip. One is fine-tuned
from random weights for some steps, and its loss falls. The other ships with the sandbox and was
taught faults on purpose (`sandbox.start_model`); RL repairs them, measured on new clips before and
after. The whole lesson from random weights is `sandbox.learning`. The same command again resumes.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, field_validator

from cli.config import EXIT_OK, parse_command, run_command
from cli.index_page import INDEX, write_index_page
from cli.option_groups import GeneratorOptions, JudgeOptions, OutputOptions, SeedOptions
from cli.output_folder import claim_folder
from sandbox.lessons import short_lesson
from sandbox.lessons.folders import Folders, LearningConfig, TrainingSizeOptions
from sandbox.lessons.stages import StageFailedError, Stages, run
from sandbox.option_groups import WorldSizeOptions
from sandbox.world.clips import NOTICE

PROG = "sandbox.demo"
_SHOWN_ROWS = 1
_STAGES_OF_DATA, _STAGES_OF_LEARNING = 5, 3
_ALGO = "pa-grpo+appo"
_LOG = "output.txt"  # of commands whose result is shown in a few lines


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
        "train_questions": 640,
        "rl_steps": 40,
        "seeds": (0,),
    },
    notes={
        "output_dir": "The world goes to `world/`, the build to `cot/`, the audit of its judge to "
        "`audit/`, the trained model to `learning/`.",
        "generator": "Its faults are planted.",
        "judge": "Its errors are planted; the audit has to find them.",
    },
    group="judge",
    example="--output-dir out/demo",
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
    _write_indexes(config)
    made = {"index": config.output_dir / INDEX, **made}
    print(f"\nDone in {time.monotonic() - started:.0f} s")
    for name, path in made.items():
        print(f"  {name:9} {path}")
    return EXIT_OK


def _write_indexes(config: DemoConfig) -> None:
    """A page for each folder whose command wrote none, then one that leads to all of them."""
    folders = [config.output_dir / "world"]
    if config.learning:
        folders.append(config.output_dir / "learning")
    for folder in (*folders, config.output_dir):
        write_index_page(folder)


def _data(config: DemoConfig, stages: Stages) -> dict[str, Path]:
    """From clips to an audited dataset. Returns the paths to print."""
    world, build = config.output_dir / "world", config.output_dir / "cot"
    audit, log = config.output_dir / "audit", config.output_dir / _LOG
    with stages.stage(
        f"render {config.clips} clips, {config.stills} stills, {config.num_questions} questions",
        "What happens in each clip is known, so every later number can be held against the truth.",
    ):
        run("sandbox.clips", "--out", world, *_sizes(config), log=log)
    with stages.stage(
        "a dataset of observations, reasoning and answers: generate, verify, judge",
        "A teacher writes each trace; it stays if its answer is right and a judge that cannot see"
        " the clip finds that the answer follows from the observation. Both err on purpose.",
    ):
        run("pipeline.build_cot", *_build_options(config, world, build), log=log)
    with stages.stage(
        "the funnel: what became of each question; pages of all rows",
        "Nothing vanishes: each rejected trace is kept with its reason.",
    ):
        run("pipeline.status", build)
        run("pipeline.browse", build)
    with stages.stage(
        "load the dataset with `datasets`", "Plain Parquet files: any trainer can read them."
    ):
        _show_dataset(build / "dataset", config.output_dir / "datasets_cache")
    with stages.stage(
        "audit the judge: rows drawn blind, labels from the truth, leak probes",
        f"How often is the judge wrong, and what does that do to the data? It is {config.judge}:"
        " its error rates are planted, and the audit has to find them.",
    ):
        _audit(config, world, build, audit)
        _show_verdict(audit / "report.json")
    return {
        "dataset": build / "dataset",
        "card": build / "README.md",
        "ledger": build / "cot.duckdb",
        "audit": audit / "report.html",
        "clips": world / "videos",
        "output": log,
    }


def _learning(config: DemoConfig, stages: Stages) -> dict[str, Path]:
    """A loss that falls, and RL from the shipped start. Returns the paths to print."""
    folders = Folders(
        LearningConfig(
            output_dir=config.output_dir / "learning",
            seed=config.seed,
            train_questions=config.train_questions,
            evaluation_questions=config.evaluation_questions,
            faulty_questions=config.train_questions,
            algos=(_ALGO,),
            seeds=config.seeds,
            rl_steps=config.rl_steps,
        ),
        short_lesson.PRESET,
        config.output_dir / _LOG,
    )
    folders.claim()
    with stages.stage(
        "fine-tune a video model of 1 M parameters from random weights, for some steps",
        "Its loss falls; it learns the form of a trace long before it sees anything.",
    ):
        print(f"loss: {short_lesson.loss_that_falls(folders)}")
    with stages.stage(
        f"{config.rl_steps} steps of {_ALGO} from a model that was taught faults",
        "It takes green for yellow and circles for squares, and concludes times and numbers one too"
        " high. The judge rewards observations, the right answer rewards reasoning, each on its own"
        " tokens.",
    ):
        short_lesson.reinforce(folders)
    with stages.stage(
        "new clips, before and after: answers, and what the observations say",
        "If the model looks, another clip's frames bring its answers down to a constant's.",
    ):
        table = short_lesson.before_and_after(folders)
        print(f"\n{table.text}")
    (folders.out / "tables.md").write_text(table.text + "\n", "utf-8")
    out = short_lesson.rl_folder(folders, config.seeds[0])
    return {
        "model": out / "model",
        "report": out / "report.md",
        "rollouts": out / "pages",
        "metrics": out / "metrics.jsonl",
        "gains": folders.out / "tables.md",
    }


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
    judge = ("--judge", config.judge, "--probes", "--media-root", world)
    log = config.output_dir / _LOG
    run("judges.audit", "sample", audit, "--build", build, *size, log=log)
    run("sandbox.truth_labels", audit, "--media-root", world, "--out", labels, log=log)
    run("judges.audit", "label", audit, "--import", labels, log=log)
    run("judges.audit", "run", audit, *judge, log=log)
    run("judges.audit", "report", audit, log=log)


def _show_verdict(report_file: Path) -> None:
    """What the audit found, in a few lines."""
    report = json.loads(report_file.read_text("utf-8"))
    judge = next(one for one in report["judges"] if one["is_source"])
    kept = report["consequences"]["kept"]
    probes = ", ".join(
        f"{one['probe']} {100 * one['passed']['value']:.0f} %" for one in report["probes"]
    )
    print(
        f"it agrees with the truth on {_percent(judge['against_people']['agreement'])} of rows\n"
        f"of the traces it kept {_percent(kept['wrong'])} are insufficient\n"
        f"probes that say nothing and pass: {probes}"
    )


def _percent(estimate: Mapping[str, float]) -> str:
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


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
