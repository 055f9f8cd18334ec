"""Which ways of spreading a run fit on its GPUs, and with how large a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from train.planning.job import Job
from train.planning.memory import WRAPPINGS, Memory, loading_bytes, memory, trained_and_frozen

LARGEST_TRIED = 1024
DEFAULT_RANK = 64


@dataclass(frozen=True)
class Cluster:
    """The GPUs of a run."""

    gpus: int
    """That learn; in process they also draw."""
    gpu_memory: float
    """Bytes of each."""
    rollout_gpus: int = 0
    """That only draw, with vLLM, beside them."""


@dataclass(frozen=True)
class Way:
    """One way of spreading a run, and what comes of it. Batch sizes are those of one GPU, as
    --per-device-train-batch-size counts them; 0 where not even one group fits, and LARGEST_TRIED
    groups where memory does not grow with them."""

    wrapping: str
    lora_rank: int
    memory: Memory
    fits: bool
    """With completions drawn in process."""
    fits_with_vllm: bool
    """With completions drawn elsewhere."""
    largest_batch: int
    largest_batch_with_vllm: int
    per_pass: int | None
    """The most completions in a pass (--completions-per-pass) with which the run fits, where it
    does not as it is; 0 where none are few enough. None where it fits, and in fine-tuning."""
    per_pass_with_vllm: int | None

    @property
    def name(self) -> str:
        """As tables write it."""
        return self.wrapping.upper() + (f" LoRA {self.lora_rank}" if self.lora_rank else "")


@dataclass(frozen=True)
class Plan:
    """A run and every way of spreading it that was asked for."""

    job: Job
    cluster: Cluster
    ways: tuple[Way, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything, in bytes and tokens."""
        sizes, job = self.job.sizes, self.job
        return {
            "model": sizes.name,
            "family": sizes.family.name,
            "weights": {
                "all": sizes.num_weights,
                "vision_tower": sizes.num_tower,
                "trained": trained_and_frozen(job)[0],
            },
            "gpus": self.cluster.gpus,
            "rollout_gpus": self.cluster.rollout_gpus,
            "gpu_memory": self.cluster.gpu_memory,
            "prompt_tokens": job.prompt.tokens,
            "group_size": job.group_size,
            "completion_tokens": job.tokens,
            "batch_size": job.batch_size,
            "completions_per_pass": job.per_pass,
            "row_tokens": job.row.width,
            "groups_drawn": job.groups_drawn,
            "loading_cpu_memory": loading_bytes(job),
            "ways": [
                {
                    "wrapping": way.wrapping,
                    "lora_rank": way.lora_rank,
                    "parts": {name: round(size) for name, size in way.memory.parts.items()},
                    "peak_learning": round(way.memory.learning),
                    "peak_drawing": round(way.memory.drawing),
                    "fits": way.fits,
                    "fits_with_vllm": way.fits_with_vllm,
                    "largest_batch": way.largest_batch,
                    "largest_batch_with_vllm": way.largest_batch_with_vllm,
                    "completions_per_pass": way.per_pass,
                    "completions_per_pass_with_vllm": way.per_pass_with_vllm,
                }
                for way in self.ways
            ],
        }


def plan(job: Job, cluster: Cluster, wrappings: Sequence[str] = WRAPPINGS) -> Plan:
    """Every wrapping, with and without an adapter (of rank 64 where the job has none).

    A single GPU has nothing to spread: DDP's row is then the run of one process.
    """
    if cluster.gpus == 1:
        wrappings = wrappings[:1] if "ddp" not in wrappings else ("ddp",)
    ranks = (0, job.lora_rank or DEFAULT_RANK)
    return Plan(
        job,
        cluster,
        tuple(
            _way(job.with_rank(rank), wrapping, cluster) for rank in ranks for wrapping in wrappings
        ),
    )


def _way(job: Job, wrapping: str, cluster: Cluster) -> Way:
    def fits(one: Job) -> bool:
        return memory(one, wrapping, cluster.gpus).peak <= cluster.gpu_memory

    def fits_with_vllm(one: Job) -> bool:
        return memory(one, wrapping, cluster.gpus).learning <= cluster.gpu_memory

    return Way(
        wrapping=wrapping,
        lora_rank=job.lora_rank,
        memory=memory(job, wrapping, cluster.gpus),
        fits=fits(job),
        fits_with_vllm=fits_with_vllm(job),
        largest_batch=_largest_batch(job, fits),
        largest_batch_with_vllm=_largest_batch(job, fits_with_vllm),
        per_pass=_per_pass(job, fits),
        per_pass_with_vllm=_per_pass(job, fits_with_vllm),
    )


def _largest_batch(job: Job, fits: Callable[[Job], bool]) -> int:
    groups = _largest(lambda number: fits(job.with_groups(number)), LARGEST_TRIED)
    return max(1, job.group_size) * groups


def _per_pass(job: Job, fits: Callable[[Job], bool]) -> int | None:
    """How many completions at a time let a run fit that does not; see `Way.per_pass`."""
    if not job.is_rl or fits(job):
        return None
    most = _largest(lambda number: fits(job.with_per_pass(number)), job.batch_size)
    if not most:
        return 0
    row = job.with_per_pass(most).row  # 63 of 64 make two passes of 32
    return row.groups * row.completions


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits; 0 if none does."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
