"""A fine-tuning step: ours on video against stock `trl.SFTTrainer`, on the same model.

    python benchmarks/sft_step.py [--family qwen2.5-vl] [--rows 32] [--steps 6]

Stock SFTTrainer sees images only: it would drop a video without an error. So its rows have as many
pictures as the video has temporal cells, of the same size: as many vision tokens and as much work
for the tower, with the same text around. (Each picture brings two markers of its own, so rates are
per token.) Same random model, float32, one torch thread; each form runs in a process of its own and
forms take turns. A turn is a whole short training: fetching rows, collating, forward, backward,
AdamW. Our rows are tokenised before, as the command does; files come from a warm frame cache.

Printed as JSON: tokens of the language model per second, their ratio, and the share of the time in
which our trainer waited for data.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.turns import UNITS, alternate, median_ratio, serve

FORMS = ("stock on images", "ours on video")
_FRAMES = 8


def build_model(folder: Path, options: argparse.Namespace) -> None:
    """The same for both forms."""
    from sandbox.models.tiny_models import TinySize, save_tiny_model

    size = TinySize(
        width=options.width, layers=options.layers, heads=4, vision_width=64, weight_std=0.02
    )
    save_tiny_model(options.family, folder, size=size)


def our_rows(options: argparse.Namespace, folder: Path, processor: Any) -> tuple[Any, list[Any]]:
    """(inputs, rows): clips of 8 frames, a question, a trace."""
    from helpers.training_world import dataset_row, question, write_clip

    from media.sampling import FrameSpec
    from schemas.traces import TEMPLATES
    from train.data.frame_loader import FrameLoader
    from train.data.model_inputs import VideoInputs
    from train.data.sft_dataset import sft_rows, tokenised

    made = []
    for number in range(options.clips):
        write_clip(folder / f"{number}.mp4", num_frames=_FRAMES, size=(56, 56), seed=number)
    for number in range(options.rows * options.steps):
        made.append(dataset_row(question(f"{number % options.clips}.mp4")))
    loader = FrameLoader(folder, spec=FrameSpec(f"uniform:{_FRAMES}"), cache_dir=folder / "cache")
    inputs = VideoInputs(processor, loader, TEMPLATES["think-answer"])
    rows = tokenised(sft_rows(made, TEMPLATES["think-answer"], target="gold"), inputs)
    for number in range(options.clips):  # a warm cache is what is measured
        inputs.prompts([rows[number].prompt])
    return inputs, rows


def stock_rows(options: argparse.Namespace) -> Any:
    """The same questions and traces on pictures, in the form that TRL documents."""
    import numpy as np
    from helpers.training_world import dataset_row, question
    from PIL import Image

    from schemas.prompting import task_prompt
    from schemas.traces import TEMPLATES
    from train.data.sft_dataset import sft_rows

    draw = np.random.default_rng(0)
    asked = question("0.mp4")
    (row,) = sft_rows([dataset_row(asked)], TEMPLATES["think-answer"], target="gold")
    prompt = task_prompt(asked, "think-answer").text
    pictures = [
        [
            Image.fromarray(draw.integers(0, 255, (56, 56, 3), dtype=np.uint8))
            for _ in range(_FRAMES // 2)
        ]
        for _ in range(options.clips)
    ]

    def picked(index: int) -> dict[str, Any]:
        return {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": row.target}],
            "images": pictures[index % options.clips],
        }

    from datasets import Dataset

    rows = [picked(number) for number in range(options.rows * options.steps)]
    return Dataset.from_list(rows)


def arguments_of(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """TRL's options, the same for both forms."""
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": options.rows,
        "gradient_accumulation_steps": 1,
        "max_steps": options.steps,
        "learning_rate": 1e-3,
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": [],
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "max_length": None,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def worker(options: argparse.Namespace) -> None:
    """One form: each request is a whole short training run of `--steps` steps."""
    import torch

    from train.modeling.loading import load_policy

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder / "model", options)
        make = stock_trainer if options.form == FORMS[0] else our_trainer
        trainer_of = make(options, folder)

        def run() -> float:
            trainer = trainer_of(load_policy(folder / "model", device="cpu"))
            with contextlib.redirect_stdout(sys.stderr):  # where TRL prints its metrics
                trainer.train()
            if options.waiting:
                seconds = trainer.state.log_history[-1]["train_runtime"]
                return float(trainer.total_waited_seconds / seconds)
            return float(trainer._total_train_tokens)

        serve(run)


def stock_trainer(options: argparse.Namespace, folder: Path) -> Callable[[Any], Any]:
    """model -> TRL's trainer on pictures."""
    from train.modeling.loading import load_processor
    from train.trainers.trl_imports import SFTConfig, SFTTrainer

    dataset, processor = stock_rows(options), load_processor(folder / "model")
    return lambda model: SFTTrainer(
        model=model,
        args=SFTConfig(**arguments_of(options, folder)),
        train_dataset=dataset,
        processing_class=processor,
    )


def our_trainer(options: argparse.Namespace, folder: Path) -> Callable[[Any], Any]:
    """model -> our trainer on clips."""
    from train.modeling.loading import load_processor
    from train.sft import batches_ahead
    from train.trainers.sft_trainer import VideoSFTTrainer, row_numbers
    from train.trainers.trl_imports import SFTConfig

    processor = load_processor(folder / "model")
    inputs, rows = our_rows(options, folder, processor)

    def make(model: Any) -> Any:
        arguments = SFTConfig(
            **arguments_of(options, folder), dataset_kwargs={"skip_prepare_dataset": True}
        )
        return VideoSFTTrainer(
            rows_ahead=batches_ahead(arguments, inputs, rows),
            model=model,
            args=arguments,
            train_dataset=row_numbers(range(len(rows))),
            processing_class=processor,
        )

    return make


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Both forms in turn, and what they come to."""
    commands: dict[str, Sequence[str]] = {
        form: [sys.executable, __file__, "--form", form, *sys.argv[1:]] for form in FORMS
    }
    report = alternate(commands, options.repeats)
    report.pop("ends")
    tokens = {form: int(value) for form, value in report.pop("value").items()}
    waiting = alternate({FORMS[1]: [*commands[FORMS[1]], "--waiting"]}, 1)["value"][FORMS[1]]
    seconds = report["median seconds"]
    more = tokens[FORMS[1]] / tokens[FORMS[0]]
    ratios = {
        unit: round(more * median_ratio(report, FORMS[0], FORMS[1], unit), 3) for unit in UNITS
    }
    return {
        "settings": {n: v for n, v in vars(options).items() if n not in ("form", "waiting")},
        **report,
        "tokens per turn": tokens,
        "tokens per second": {form: round(tokens[form] / seconds[form]) for form in FORMS},
        "ours over stock, tokens per second (median of turns)": ratios,
        "share of time waiting for data, ours": round(waiting, 4),
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", default="qwen2.5-vl", choices=("qwen2.5-vl", "qwen3-vl"))
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rows", type=int, default=32, help="rows per step")
    parser.add_argument("--steps", type=int, default=6, help="steps per turn")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3, help="turns that count")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--waiting", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        worker(options)
    else:
        print(json.dumps(benchmark(options), indent=1))


if __name__ == "__main__":
    main()
