"""A step of fine-tuning: ours on a video against stock `trl.SFTTrainer` on a picture.

    python benchmarks/gpu/sft.py [--rows 4] [--repeats 3] [--device cuda --shape 3b]

Stock SFTTrainer sees images only, so its rows have a picture of as many vision tokens as the video,
and the same text around. Whole optimizer steps with AdamW; files come from a warm frame cache.
Forms take turns, each in a process of its own; seconds, tokens per second and peak memory above the
model are printed as JSON. One torch thread on a CPU, random weights.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.phases import Phases
from benchmarks.shapes import add_shape_options
from benchmarks.step_world import StepWorld
from benchmarks.turns import alternate, median_ratio

FORMS = ("stock on a picture", "ours on a video")
_SENTENCES = 24
"""Of a row's reasoning."""


def settings_of(world: StepWorld, **more: Any) -> Any:
    """TRL's settings, the same for both."""
    from train.trainers.trl_imports import SFTConfig

    options = world.options
    on_gpu = options.device != "cpu"
    return SFTConfig(
        output_dir=str(world.folder / "out"),
        per_device_train_batch_size=options.rows,
        max_steps=10_000,
        learning_rate=1e-6,
        save_strategy="no",
        report_to="none",
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=options.gradient_checkpointing,
        max_length=None,
        remove_unused_columns=False,
        disable_tqdm=True,
        logging_strategy="no",
        **more,
    )


def rows_of(world: StepWorld) -> list[Any]:
    """Questions and traces of one length."""
    from helpers.training_world import dataset_row

    from schemas.traces import TEMPLATES
    from train.data.sft_dataset import sft_rows

    made = [
        dataset_row(world.questions[n % 2], think_sentences=_SENTENCES)
        for n in range(8 * world.options.rows)
    ]
    return list(sft_rows(made, TEMPLATES["p2r"], target="gold"))


def ours(world: StepWorld, phases: Phases) -> Any:
    """Our trainer, on videos."""
    from train.data.sft_dataset import tokenised
    from train.sft import batches_ahead
    from train.trainers.sft_trainer import VideoSFTTrainer, row_numbers

    settings = settings_of(world, dataset_kwargs={"skip_prepare_dataset": True})
    rows = tokenised(rows_of(world), world.inputs)
    return VideoSFTTrainer(
        rows_ahead=batches_ahead(settings, world.inputs, rows),
        model=world.model(),
        args=settings,
        train_dataset=row_numbers(range(len(rows))),
        processing_class=world.processor,
        callbacks=[phases.callback()],
    )


def stock(world: StepWorld, phases: Phases) -> Any:
    """TRL's own, on pictures."""
    from PIL import Image

    from schemas.prompting import task_prompt
    from train.trainers.trl_imports import Dataset, SFTTrainer

    rows = [
        {
            "prompt": [
                {"role": "user", "content": task_prompt(row.question, world.template.name).text}
            ],
            "completion": [{"role": "assistant", "content": row.target}],
            "images": [Image.fromarray(world.loader.load(row.question.media[0]).pixels[0])],
        }
        for row in rows_of(world)
    ]
    return SFTTrainer(
        model=world.model(),
        args=settings_of(world),
        train_dataset=Dataset.from_list(rows),
        processing_class=world.processor,
        callbacks=[phases.callback()],
    )


def worker(options: argparse.Namespace) -> None:
    """One form, on request."""
    make, kind = (stock, "image") if options.form == FORMS[0] else (ours, "video")
    with tempfile.TemporaryDirectory() as folder:
        world = StepWorld(options, Path(folder), kind=kind)
        phases = Phases(options.device)
        trainer = make(world, phases)
        trainer.train()
        world.loader.close()
    phases.value = float(trainer._total_train_tokens) / len(phases.steps)
    phases.end()


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Both forms, and what they come to."""
    commands = {form: [sys.executable, __file__, "--form", form, *sys.argv[1:]] for form in FORMS}
    report = alternate(commands, options.repeats)
    del report["ends"]
    tokens = report.pop("value")
    ratio = tokens[FORMS[1]] / tokens[FORMS[0]] * median_ratio(report, *FORMS)
    return {
        "settings": vars(options),
        **report,
        "tokens per step": {form: round(value) for form, value in tokens.items()},
        "tokens per second": {
            form: round(tokens[form] / seconds)
            for form, seconds in report["median seconds"].items()
        },
        "ours over stock, tokens per second": round(ratio, 3),
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_shape_options(parser)
    parser.add_argument("--rows", type=int, default=4, help="of a step")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--repeats", type=int, default=3, help="turns that count")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.groups = 1  # two files
    if options.form:
        worker(options)
    else:
        print(json.dumps(benchmark(options), indent=1))


if __name__ == "__main__":
    main()
