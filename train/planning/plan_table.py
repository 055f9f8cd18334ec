"""A plan as text of 80 columns: the run, memory by part, what fits."""

import io
from collections.abc import Callable, Iterator, Sequence

from rich import box

from cli.console import output_console, plain_table
from train.planning.memory import (
    FLOOR_BYTES,
    FLOOR_SHARE,
    GB,
    loading_bytes,
    trained_and_frozen,
)
from train.planning.plan import LARGEST_TRIED, Plan, Way

WIDTH = 80
# Of `train.planning.memory.Parts`.
_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "Adam",
    "reference": "reference",
    "gathered": "gathered weights",
    "copies": "bf16 copies",
    "activations": "activations",
    "logits": "logits",
    "kv_cache": "KV cache",
    "floor": "floor",
}
_NAMES = {"ddp": "DDP", "zero2": "ZeRO-2", "zero3": "ZeRO-3", "fsdp2": "FSDP2"}


def plan_text(plan: Plan) -> str:
    """What is printed. Sizes are GB of 10^9 bytes on each GPU."""
    is_rl, ways = plan.job.is_rl, plan.ways
    rows = [
        [title, *(_gb(dict(way.memory.parts.items())[name]) for way in ways)]
        for name, title in _PARTS.items()
        if is_rl or name not in ("reference", "kv_cache")
    ]

    def add(title: str, cell: Callable[[Way], str]) -> None:
        rows.append([title, *map(cell, ways)])

    add("peak, learning", lambda way: _gb(way.memory.learning))
    if is_rl:
        add("peak, drawing", lambda way: _gb(way.memory.drawing))
    add("fits", lambda way: _fits(way.fits))
    add("largest batch", lambda way: _batch(plan, way.largest_batch))
    if any(way.per_pass for way in ways):
        add("per pass", lambda way: _per_pass(way.per_pass))
    if is_rl:
        add("fits, vLLM", lambda way: _fits(way.fits_with_vllm))
        add("largest batch, vLLM", lambda way: _batch(plan, way.largest_batch_with_vllm))
    if any(way.per_pass_with_vllm for way in ways):
        add("per pass, vLLM", lambda way: _per_pass(way.per_pass_with_vllm))
    columns = ["GB on each GPU", *map(_name, ways)]
    return "\n".join([*_run(plan), _table(columns, rows), *_notes(plan)])


def _run(plan: Plan) -> Iterator[str]:
    job, sizes = plan.job, plan.job.sizes
    trained, _ = trained_and_frozen(job)
    yield (
        f"{sizes.name} ({sizes.family.name}): {_number(sizes.num_weights)} weights,"
        f" {_number(trained)} train"
    )
    checkpointing = "" if job.checkpoints else ", no gradient checkpointing"
    if job.is_rl:
        row, reference = job.row, "with" if job.needs_reference else "without"
        yield (
            f"{row.groups} x ({row.prompt:,} prompt + {row.completions:,} x"
            f" {row.tokens:,}) tokens at a time, {reference} a reference{checkpointing}"
        )
    else:
        yield (
            f"{job.groups} x {job.row.prompt:,} tokens at a time, {job.tokens:,} of each"
            f" learned{checkpointing}"
        )
    cluster = plan.cluster
    beside = f", {cluster.rollout_gpus} beside them draw" if cluster.rollout_gpus else ""
    plural, verb = ("s", "") if cluster.gpus > 1 else ("", "s")
    yield f"{cluster.gpus} GPU{plural} of {cluster.gpu_memory / GB:g} GB learn{verb}{beside}"


def _notes(plan: Plan) -> Iterator[str]:
    yield (
        "batch: --per-device-train-batch-size"
        + ("; vLLM: drawn on other GPUs" if plan.job.is_rl else "")
    )
    if any(way.per_pass or way.per_pass_with_vllm for way in plan.ways):
        yield "per pass: with --completions-per-pass of at most that, it fits"
    ranks = {way.lora_rank for way in plan.ways if way.lora_rank}
    if ranks:
        yield f"LoRA: of rank {max(ranks)}"
    yield f"CPU memory: up to {_gb(loading_bytes(plan.job))} GB a process while the model is read"
    yield (
        f"floor: assumed, {FLOOR_BYTES / GB:g} GB for CUDA and NCCL and {FLOOR_SHARE:.0%} of the"
        " rest"
    )


def _name(way: Way) -> str:
    adapter = "\nLoRA" if way.lora_rank else ""
    return _NAMES[way.wrapping] + adapter


def _number(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e7 else f"{count / 1e6:.2f} M"


def _fits(fits: bool) -> str:
    return "yes" if fits else "no"


def _batch(plan: Plan, size: int) -> str:
    is_bounded = size < LARGEST_TRIED * max(1, plan.job.group_size)
    return str(size or "-") if is_bounded else "any"


def _per_pass(number: int | None) -> str:
    return "-" if number is None else str(number or "no")


def _gb(size: float) -> str:
    return f"{size / GB:.1f}" if size else "-"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    console = output_console(file=buffer, file_width=WIDTH)
    table = plain_table(columns, rows, num_texts=1, box=box.SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    console.print(table)
    lines = (line.rstrip() for line in buffer.getvalue().splitlines())
    return "\n".join(line for line in lines if line)
