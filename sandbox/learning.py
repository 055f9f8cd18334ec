"""`python -m sandbox.learning`: a small video model learns from random weights, with result tables.

    python -m sandbox.learning --out out/learning                  # everything, an hour on 2 cores
    python -m sandbox.learning --out out/learning --parts sft      # 10 minutes
    python -m sandbox.learning --out out/learning --parts rl --algos grpo --seeds 0

Parts, each of which first makes what it needs of the earlier ones:
    sft     a random model of 1 M parameters, vision warm-up, fine-tuning on a built dataset
    rl      a start fine-tuned on systematic label noise, then RL: algorithms x seeds
    frames  how often the frames that APPO selects are those that show the answer, by strategy
    grounding   fine-tuning and RL with a reward for the time span that shows the answer
Finished commands are recorded, so the same command again resumes. Tables are printed and saved in
`tables.md`, numbers in `report.json`, in the output folder.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.config import EXIT_OK, parse_command, print_config, require_packages, run_command
from sandbox.lessons import recipe
from sandbox.lessons.folders import PARTS, Folders, LearningConfig
from sandbox.lessons.stages import StageFailedError, Stages
from sandbox.world.clips import NOTICE
from train.early_checks import TRAINING_PACKAGES

if TYPE_CHECKING:
    from sandbox.lessons.tables import ResultTable

PROG = "sandbox.learning"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts in order; print and save their tables."""
    config = parse_command(
        LearningConfig,
        argv,
        prog=PROG,
        description="Train a small video model from random weights in the sandbox, and measure it.",
    )
    require_packages(*TRAINING_PACKAGES)
    folders = Folders(config)
    folders.claim()
    print(NOTICE, file=sys.stderr)
    print_config(config)
    stages = Stages(len(config.parts))
    tables: list[ResultTable] = []
    try:
        for part in PARTS:
            if part in config.parts:
                with stages.stage(_TITLES[part]):
                    tables.append(_RUNNERS[part](folders))
                print("\n" + tables[-1].text)
                _save(folders, part, tables[-1])
    except StageFailedError as error:
        return error.status
    print(f"\ntables: {folders.out / 'tables.md'}, numbers: {folders.out / 'report.json'}")
    return EXIT_OK


def clean_model(folders: Folders) -> Path:
    """A model fine-tuned on traces of a faultless teacher."""
    config = folders.config
    folders.render(folders.train, folders.held_out)
    random_model, warm = folders.random_model(), folders.out / "warm"
    seed = ["--seed", str(config.seed)]
    folders.once(
        "warm", "sandbox.warm_up", ["--model", str(random_model), "--out", str(warm), *seed]
    )
    build = folders.faultless_dataset()
    model = folders.out / "sft"
    options = recipe.fine_tune(
        warm, build, folders.train, model, folders.cache, recipe.CLEAN_SCHEDULE, seed=config.seed
    )
    folders.once("sft", "train.sft", options)
    return model


def noisy_model(folders: Folders) -> Path:
    """The clean model, fine-tuned further on systematic label noise: the start of RL."""
    before, config = clean_model(folders), folders.config
    build, model = folders.out / "cot_faulty", folders.out / "start"
    options = recipe.build(
        folders.train, build, folders.cache, has_label_noise=True, limit=config.faulty_questions
    )
    folders.once("build faulty", "pipeline.build_cot", options)
    options = recipe.fine_tune(
        before, build, folders.train, model, folders.cache, recipe.NOISY_SCHEDULE, seed=config.seed
    )
    folders.once("start", "train.sft", options)
    return model


def run_sft(folders: Folders) -> "ResultTable":
    """Train a model from random weights; evaluate it before, after, and on shuffled videos."""
    from sandbox.lessons.tables import sft_table

    model = clean_model(folders)
    rows = {
        "random weights": folders.evaluate("random", folders.out / "random"),
        "fine-tuned": folders.evaluate("sft", model),
        "another clip's frames": folders.evaluate("sft shuffled", model, shuffled=True),
    }
    return sft_table(folders, rows)


def rl_folder(folders: Folders, algo: str, seed: int) -> Path:
    """Folder of an RL run: its model, metrics and pages."""
    return folders.out / "rl" / f"{algo}_seed_{seed}"


def run_rl(folders: Folders, *, has_label_noise: bool = True) -> "ResultTable":
    """Train with each algorithm and seed from the same start, and evaluate.

    The start is the clean model, or that model fine-tuned on systematic label noise.
    """
    from sandbox.lessons.tables import rl_table

    model, config = clean_model(folders), folders.config
    start = noisy_model(folders) if has_label_noise else model
    folders.render(folders.rl)
    fine_tuned = folders.evaluate("sft", model)
    clean = fine_tuned if has_label_noise else None
    before = folders.evaluate("start", start) if has_label_noise else fine_tuned
    runs = {}
    for seed in config.seeds:
        for algo in config.algos:
            name = f"{algo} seed {seed}"
            out = rl_folder(folders, algo, seed)
            options = recipe.reinforce(
                start, folders.rl, out, folders.cache, algo=algo, steps=config.rl_steps, seed=seed
            )
            spent = folders.once(f"rl {name}", "train.rl", options)
            runs[algo, seed] = folders.evaluate(name, out / "model"), spent
    return rl_table(folders, before=before, clean=clean, runs=runs)


def _frames(folders: Folders) -> "ResultTable":
    from sandbox.lessons.tables import frames_table

    start = noisy_model(folders)
    folders.render(folders.rl)
    out = folders.out / "crucial_frames.json"
    options = recipe.crucial_frames(start, folders.rl, out, folders.cache)
    folders.once("frames", "sandbox.crucial_frames", options)
    return frames_table(json.loads(out.read_text("utf-8")))


def _grounding(folders: Folders) -> "ResultTable":
    from sandbox.lessons.tables import grounding_table

    before, config = clean_model(folders), folders.config
    folders.render(folders.rl)
    dataset, model = folders.out / "grounding_traces", folders.out / "grounding_start"
    options = recipe.grounding_dataset(folders.train, dataset, limit=config.faulty_questions)
    folders.once("grounding traces", "sandbox.scripted_dataset", options)
    schedule = recipe.GROUNDING_SCHEDULE
    options = recipe.fine_tune(
        before, dataset, folders.train, model, folders.cache, schedule, seed=config.seed
    )
    folders.once("grounding start", "train.sft", options)
    start = folders.evaluate("grounding start", model, template="grounding")
    runs = {}
    for reward in recipe.GROUNDING_REWARDS:
        name = f"grounding in {reward}"
        out = folders.out / "rl" / name.replace(" ", "_")
        options = recipe.reinforce(
            model,
            folders.rl,
            out,
            folders.cache,
            algo="grpo",
            steps=config.rl_steps,
            seed=config.seeds[0],
            grounding_reward=reward,
        )
        spent = folders.once(f"rl {name}", "train.rl", options)
        after = folders.evaluate(name, out / "model", template="grounding")
        runs[f"{config.rl_steps} steps of grpo, IoU in {reward} ({spent})"] = after
    return grounding_table(start, runs)


def _save(folders: Folders, part: str, table: "ResultTable") -> None:
    """Save a part's table beside those of the other parts."""
    file = folders.out / "report.json"
    try:
        report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        report = {}
    report[part] = {"text": table.text, **table.numbers}
    file.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    texts = [report[name]["text"] for name in PARTS if name in report]
    (folders.out / "tables.md").write_text("\n\n".join(texts) + "\n", "utf-8")


_TITLES = {
    "sft": "from random weights to a model that looks and answers",
    "rl": "RL from a start with planted faults",
    "frames": "the frames that APPO selects, and those that show the answer",
    "grounding": "the time span that shows the answer",
}
_RUNNERS = {"sft": run_sft, "rl": run_rl, "frames": _frames, "grounding": _grounding}


if __name__ == "__main__":
    run_command(PROG, main)
