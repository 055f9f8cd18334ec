"""Memory of one GPU by part, for each way of spreading a run over GPUs.

What stays between steps follows from counts of parameters: n all of them, t those that train (an
adapter's, or the language model's and where it trains the tower's), on N processes.

    wrapping    weights            gradients        Adam    reference    gathered
    ddp         4 t + b (n - t)    4 t, twice (a)   8 t     b n          -
    fsdp2       the same / N       4 t / N          8 t / N b n / N      (b)
    zero2       c n + 4 t / N      4 t / N (d)      8 t / N c n          -
    zero3       c n / N + 4 t / N  4 t / N (d)      8 t / N c n / N      (b) (e)

b is 4, or 2 where weights are kept in bfloat16; c is 2 where passes compute in bfloat16, else b.
(a) With two processes or more, DDP keeps gradients a second time, in its buckets. (b) While it
learns: what belongs to no layer, two layers, in the format that products are computed in, and one
layer's gradients; while it draws in process: all weights. (c) DeepSpeed keeps all weights in that
format, and a float32 copy of those that train. (d) And a bucket in which they are put together,
with a copy of it while it is summed over processes. (e) The tower is whole in each process.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from train.planning.activations import PassBytes, Precision
from train.planning.job import Job
from train.planning.model_sizes import TextSizes

WRAPPINGS = ("ddp", "zero2", "zero3", "fsdp2")
SHARDED = ("zero3", "fsdp2")
GB = 1e9

# Assumed, not measured: the context of CUDA, workspaces of cuBLAS and buffers of NCCL; and what the
# allocator cannot use, as a share of the rest.
FLOOR_BYTES = 2 * GB
FLOOR_SHARE = 0.05

_ADAM = 2
# DeepSpeed's reduce_bucket_size, where no settings of one's own change it: numbers of a bucket.
BUCKET = 500_000_000
# `train.rollouts.kv_cache`: room for completions begins here and doubles.
_FIRST_CAPACITY = 64
# `train.rollouts.sampler`: prompts that are forwarded together.
_PREFILL_AT_ONCE = 2**14
# Of each row's scores of the next token: in the model's format, float32 and float64 (sorted where
# --top-p cuts).
_BYTES_PER_SCORE = 48


@dataclass(frozen=True)
class Parts:
    """Bytes of one GPU, by part. `gathered`, `kv_cache` and `drawing` are of drawing in process."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    gathered: float
    """Whole weights of a sharded model while it draws."""
    copies: float
    """Weights that autocast converted to the format of products."""
    activations: float
    logits: float
    kv_cache: float
    floor: float

    def items(self) -> Iterator[tuple[str, float]]:
        """Names and bytes."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))


@dataclass(frozen=True)
class Memory:
    """One GPU of a run: its parts, and the peaks of its phases. The parts do not add up to a peak:
    those of drawing and of learning are not there at the same time."""

    parts: Parts
    learning: float
    drawing: float
    """0 in fine-tuning."""

    @property
    def peak(self) -> float:
        """Drawing in process."""
        return max(self.learning, self.drawing)


def memory(job: Job, wrapping: str, processes: int) -> Memory:
    """What each of `processes` GPUs holds."""
    state = _state(job, wrapping, processes)
    passed = job.passed(state.precision)
    copies = _copies(job, state.precision)
    cache = kv_cache(job.sizes.text, job, state.precision) if job.is_rl else 0
    resident = state.weights + state.optimizer + state.reference
    learning = resident + state.gathered_learning + _learning(job, state, passed, copies)
    drawing = 0.0
    if job.is_rl:
        drawing = resident + state.buckets + state.gathered_drawing + copies
        drawing += cache + _drawing(job, state.precision) + _merged(job, state.precision)
    learning, drawing = (_with_floor(each) if each else 0.0 for each in (learning, drawing))
    parts = Parts(
        weights=state.weights,
        gradients=state.gradients,
        optimizer=state.optimizer,
        reference=state.reference,
        gathered=state.gathered_drawing if job.is_rl else state.gathered_learning,
        copies=copies,
        activations=passed.activations,
        logits=passed.logits,
        kv_cache=cache,
        floor=max(learning, drawing) - _without_floor(max(learning, drawing)),
    )
    return Memory(parts, learning, drawing)


def _with_floor(peak: float) -> float:
    return peak * (1 + FLOOR_SHARE) + FLOOR_BYTES


def _without_floor(peak: float) -> float:
    return (peak - FLOOR_BYTES) / (1 + FLOOR_SHARE)


@dataclass(frozen=True)
class _State:
    """What a wrapping keeps, in bytes."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    buckets: float
    gathered_learning: float
    gathered_drawing: float
    ending: float
    """At the end of a backward pass, on top of what is gathered: whole gradients of what belongs to
    no layer."""
    precision: Precision
    summing: float = 0.0
    """Copies of gradients while they are summed over processes."""


def trained_and_frozen(job: Job) -> tuple[int, int]:
    """Numbers of weights that train, and that do not."""
    sizes = job.sizes
    if job.lora_rank:
        return job.lora_rank * sizes.lora_widths, sizes.num_weights
    trained = sizes.num_weights if job.trains_tower else sizes.num_text
    return trained, sizes.num_weights - trained


def loading_bytes(job: Job) -> int:
    """CPU memory of a process that reads its model, and a reference beside it, to spread them."""
    base = job.weight_bytes or (2 if job.lora_rank and job.is_mixed else 4)
    models = 2 if job.needs_reference and not job.lora_rank else 1
    return base * models * job.sizes.num_weights


def _state(job: Job, wrapping: str, processes: int) -> _State:
    sizes = job.sizes
    trained, frozen = trained_and_frozen(job)
    base = job.weight_bytes or (2 if job.lora_rank and job.is_mixed else 4)
    own = 4 if job.lora_rank else base
    narrow = 2 if job.is_mixed else base
    references = sizes.num_weights if job.needs_reference and not job.lora_rank else 0
    if wrapping in ("zero2", "zero3"):
        return _zero(trained, frozen, references, job, wrapping, processes)
    shards = processes if wrapping == "fsdp2" else 1
    gathered_learning = gathered_drawing = ending = 0.0
    buckets = own * trained if wrapping == "ddp" and processes > 1 else 0
    stream = base
    if wrapping == "fsdp2":
        stream = narrow
        gathered_learning = narrow * (sizes.num_root + 2 * sizes.num_layer)
        gathered_drawing = narrow * sizes.num_weights
        if not job.lora_rank:  # in the format of products, and to be summed in float32
            ending = (narrow + 4) * (sizes.num_embedding + sizes.num_head)
            gathered_learning += (narrow + 4) * sizes.num_layer
    return _State(
        weights=(own * trained + base * frozen) / shards,
        gradients=own * trained / shards + buckets,
        optimizer=_ADAM * own * trained / shards,
        reference=base * references / shards,
        buckets=buckets,
        gathered_learning=gathered_learning,
        gathered_drawing=gathered_drawing,
        ending=ending,
        precision=Precision(stream, narrow, base if wrapping == "ddp" else narrow),
    )


def _zero(
    trained: int, frozen: int, references: int, job: Job, wrapping: str, processes: int
) -> _State:
    """Gradients are put together in a bucket and summed over processes in float32, from copies.
    ZeRO-3's bucket is float32 and always there, ZeRO-2's is there in backward passes."""
    sizes, total = job.sizes, trained + frozen
    is_sharded = wrapping == "zero3"
    shards = processes if is_sharded else 1
    stays = sizes.num_tower if is_sharded else 0
    number = 2 if job.is_mixed else job.weight_bytes or 4
    layers = number * (sizes.num_root - stays + 2 * sizes.num_layer)
    bucket, filled = (4 if is_sharded else number) * BUCKET, min(BUCKET, trained)
    # What is larger than a bucket is summed by itself.
    ends = (0,) if job.lora_rank else (sizes.num_embedding, sizes.num_head)
    large = max((size for size in ends if size > BUCKET), default=0)
    return _State(
        weights=number * (stays + total / shards) + 4 * trained / processes,
        gradients=4 * trained / processes + bucket,
        optimizer=8 * trained / processes,
        reference=number * (stays + references / shards) if references else 0,
        buckets=float(bucket) if is_sharded else 0.0,
        gathered_learning=layers if is_sharded else 0.0,
        gathered_drawing=number * (total - stays) if is_sharded else 0,
        ending=float((number + 4) * large),
        summing=float((4 if is_sharded else 2 * number + 4) * filled),
        precision=Precision(number, number, number),
    )


def _copies(job: Job, number: Precision) -> float:
    """Weights in the format of products: all that train, for as long as a pass lasts; of frozen
    ones only those in use, unless each layer's are kept for the backward pass."""
    sizes = job.sizes
    if number.compute >= number.weights:
        return 0.0
    if job.lora_rank and job.checkpoints:
        return float(number.compute * max(sizes.num_layer, sizes.num_head or sizes.num_embedding))
    tower = sizes.num_tower if job.trains_tower and not job.lora_rank else 0
    return float(number.compute * (sizes.num_linear + tower))


def _learning(job: Job, state: "_State", passed: PassBytes, copies: float) -> float:
    """The larger of the forward's end and the backward pass, which computes layers again.

    A forward has gradients beside it where another pass came before it in the step.
    """
    accumulates = not job.is_rl or job.groups_drawn > job.groups or job.is_in_passes
    forward = state.gradients if accumulates else state.buckets
    forward += copies + passed.kept + passed.ends + passed.logits
    backward = state.gradients + state.summing + passed.kept
    backward += max(passed.ends + passed.logits, passed.recomputed)
    backward = max(backward, state.gradients + state.ending)
    return max(forward, backward + (0.0 if job.checkpoints else copies))


def kv_cache(text: TextSizes, job: Job, number: Precision) -> int:
    """Keys and values as they are computed: each prompt once, and room for completions.
    Of layers that keep a state, one for each prompt and completion."""
    capacity = _FIRST_CAPACITY
    while capacity < job.tokens - 1:
        capacity *= 2
    tokens = job.groups_together * (job.prompt.tokens + job.group_size * capacity)
    of_tokens = text.attending * text.key_width * 2 * number.compute * tokens
    if text.recurrent is None:
        return of_tokens
    rows = job.groups_together * (1 + job.group_size)
    return of_tokens + rows * text.recurrent.layers * text.recurrent.state * 4


def _merged(job: Job, number: Precision) -> float:
    """Copies of the layers that have an adapter, with it: all linear layers but the head."""
    if not job.lora_rank or not job.merges_adapters:
        return 0.0
    sizes = job.sizes
    return float(number.weights * (sizes.num_linear - (sizes.num_head or sizes.num_embedding)))


def _drawing(job: Job, number: Precision) -> float:
    """The larger of what passes without gradients need: prompts' MLPs, scores of next tokens."""
    text = job.sizes.text
    prompts = min(job.groups_together * job.prompt.tokens, _PREFILL_AT_ONCE + job.prompt.tokens)
    prefill = prompts * (3 * text.mlp_width * number.compute + 3 * text.width * number.stream)
    return float(
        max(prefill, job.groups_together * job.group_size * text.vocabulary * _BYTES_PER_SCORE)
    )
