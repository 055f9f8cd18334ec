"""Bytes of activations: what a pass keeps for its backward pass, and what it needs on top.

The terms are the tensors that autograd saves in `train.modeling.packed_forward` and in
transformers' layers; `tests/train/planning/test_activations.py` measures them. Names as in
`train.planning.model_sizes`: H width, I MLP width, D head width, V vocabulary.

A normalisation saves its input in float32, and what it made of it where its weight trains. Under
autocast each linear layer saves a converted copy of its own; without, layers that read the same
tensor share it.
"""

from dataclasses import dataclass, replace

from train.modeling.logprobs import DEFAULT_LOGITS_AT_ONCE
from train.planning.model_sizes import ModelSizes, RecurrentSizes, TextSizes, TowerSizes

# Of one chunk of the head, per logit: logits / temperature, log-probs, and what comes of them.
_BYTES_PER_LOGIT = 12
_FLOAT32 = 4
# Tokens that a gated delta net reads at a time, and how many tensors as wide as its values its rule
# keeps (transformers' torch_chunk_gated_delta_rule).
_CHUNK, _OF_RULE = 64, 12
# Tiles of TRL's fused head (trl.kernels.chunked_logprob, 1.16).
_TILE_TOKENS = 4096
_TILE_VOCABULARY = 32768


@dataclass(frozen=True)
class Precision:
    """Number formats of a pass, in bytes per number."""

    stream: int
    """Hidden states between layers: the format of the embedding's weights."""
    compute: int
    """Products of matrices."""
    weights: int
    """Weights as they are kept; where `compute` is narrower, autocast converts them."""

    @property
    def converts(self) -> bool:
        """Whether linear layers convert their inputs, each for itself."""
        return self.compute < self.stream


@dataclass(frozen=True)
class RowShape:
    """A micro-batch of the shared-prefix forward: groups of equally long prompts and completions.

    Rows of fine-tuning are prompts without completions (G = 0), each as long as the longest.
    """

    groups: int
    prompt: int
    """P, tokens of a prompt."""
    completions: int
    """G, of a group."""
    tokens: int
    """C, of a completion."""

    @property
    def own(self) -> int:
        """Tokens of a completion in the row: nothing is predicted from the last one."""
        return max(0, self.tokens - 1)

    @property
    def width(self) -> int:
        """Tokens of the whole row."""
        return self.groups * (self.prompt + self.completions * self.own)

    @property
    def predicted(self) -> int:
        """Tokens whose log-probs are computed."""
        return self.groups * self.completions * self.tokens


@dataclass(frozen=True)
class Training:
    """What is trained, as far as the terms depend on it."""

    lora_rank: int = 0
    """0 trains the language model's weights themselves."""
    trains_tower: bool = False
    checkpoints: bool = True
    """Gradient checkpointing: of each layer only the input is kept, and one is computed again."""


def text_layer(text: TextSizes, row: RowShape, number: Precision, training: Training) -> int:
    """What one layer of the language model that attends keeps for its backward pass."""
    per_token = _around(text, number, training) + text.query_width * number.compute
    if text.has_query_norm:
        query, key = text.query_width, text.key_width
        of_norm = _FLOAT32 + (0 if training.lora_rank else number.compute)
        per_token += (query + key) * of_norm + _FLOAT32 * (text.heads + text.kv_heads)
    return row.width * per_token + _attention(text, row, number)


def recurrent_layer(
    text: TextSizes,
    sizes: RecurrentSizes,
    row: RowShape,
    number: Precision,
    training: Training,
) -> int:
    """What one gated delta net keeps, as transformers' own code computes it, in float32.

    flash-linear-attention, where it is installed, keeps less.
    """
    value, compute = sizes.value_width, number.compute
    per_token = _around(text, number, training) + value * compute  # the output projection's input
    per_token += 2 * (2 * sizes.key_width + value) * compute  # in and behind the convolution
    per_token += 5 * value * _FLOAT32  # the gated norm
    of_rule = _OF_RULE * value + 5 * _CHUNK * sizes.heads + sizes.matrix // _CHUNK
    segments = (row.prompt, *[row.own] * row.completions)
    padded = row.groups * sum(-(-length // _CHUNK) * _CHUNK for length in segments)
    return row.width * per_token + padded * of_rule * _FLOAT32


def _around(text: TextSizes, number: Precision, training: Training) -> int:
    """Of a token, what a layer keeps beside its attention: norms, inputs of projections, MLP."""
    trains, rank = not training.lora_rank, training.lora_rank
    stream, compute = number.stream, number.compute
    normed = stream if trains else 0
    copies = number.converts or bool(rank and compute < _FLOAT32)
    inputs = 5 * compute if copies else 2 * stream
    per_token = text.width * (2 * (_FLOAT32 + normed) + inputs) + 2 * _FLOAT32
    per_token += 4 * text.mlp_width * compute  # the input of the MLP's output projection, too
    return per_token + 7 * rank * compute


def _attention(text: TextSizes, row: RowShape, number: Precision) -> int:
    """What attention keeps of a layer: each prompt by itself, each completion behind its prompt."""
    size, query, key = number.compute, text.query_width, text.key_width
    prompts = row.groups * row.prompt
    if number.converts:  # rotated in float32, converted piece by piece; values are narrow already
        whole = prompts * (query + key) * size + row.width * key * size
    else:
        whole = row.width * (query + 2 * key) * size
    of_prompts = prompts * (query * size + _FLOAT32 * text.heads)
    if not row.completions and row.groups > 1:  # padded rows: a mask, and keys for each query head
        of_prompts += prompts * (2 * (query - key) + row.prompt) * size
    visible = row.prompt + row.own
    shared = text.heads // text.kv_heads
    of_completion = row.own * (2 * query * size + _FLOAT32 * text.heads)
    of_completion += visible * 2 * key * size
    of_completion += shared * row.own * visible * size  # the mask, as numbers
    return whole + of_prompts + row.groups * row.completions * of_completion


def text_backward(text: TextSizes, row: RowShape, number: Precision, training: Training) -> int:
    """What the backward pass of a layer needs beside what was kept: gradients of its MLP."""
    per_token = 2 * text.mlp_width * number.compute + text.width * number.stream
    if training.lora_rank and number.compute < _FLOAT32:
        # an adapter reads its input in float32
        per_token += (text.mlp_width + 2 * text.width) * _FLOAT32
    return row.width * per_token


def tower_layer(tower: TowerSizes, patches: int, number: Precision) -> int:
    """What one layer of a tower that trains keeps."""
    width, mlp = tower.width, tower.mlp_width
    stream, compute = number.stream, number.compute
    linears = (1 + (2 if tower.is_gated else 1)) * compute if number.converts else 2 * stream
    norms = 2 * (_FLOAT32 + stream) if tower.is_gated else 2 * stream
    attention = (2 + 3 + 1 + 1) * compute  # rotated queries and keys, all three, output, its input
    if number.converts:
        attention += 2 * (_FLOAT32 - compute)
    activated = (4 if tower.is_gated else 2) * mlp * compute
    return patches * (width * (norms + linears + attention) + activated)


def tower_ends(sizes: ModelSizes, patches: int, number: Precision) -> int:
    """What a tower that trains keeps outside of its layers: pixels, and where patches merge."""
    tower = sizes.tower
    merged = tower.merge_size**2 * tower.width
    tokens = patches // tower.merge_size**2
    merger = patches * tower.width * (_FLOAT32 + number.stream) + tokens * 3 * merged * (
        number.compute
    )
    return patches * tower.patch_values * number.stream + tower.num_mergers * merger


@dataclass(frozen=True)
class PassBytes:
    """The learner's pass over one micro-batch."""

    kept: int
    """Of the layers, from the forward until the backward pass."""
    ends: int
    """Behind the last layer: gone when the backward pass reaches the layers."""
    recomputed: int
    """On top of what is kept, at the backward pass's peak: a layer that is computed again, and
    gradients."""
    logits: int
    """Of the head, at its peak."""

    @property
    def activations(self) -> int:
        """At the peak, without the head's logits."""
        return self.kept + max(self.ends, self.recomputed)


def learner_pass(
    sizes: ModelSizes,
    row: RowShape,
    patches: int,
    number: Precision,
    training: Training,
    *,
    logits_at_once: int = DEFAULT_LOGITS_AT_ONCE,
) -> PassBytes:
    """The peak of forward and backward of a micro-batch with this many `patches` of its media."""
    text = sizes.text
    layer = text_layer(text, row, number, training)
    recurrent = 0
    if text.recurrent is not None:
        recurrent = recurrent_layer(text, text.recurrent, row, number, training)
    recomputed = text_backward(text, row, number, training)
    if training.checkpoints:
        kept = text.layers * row.width * text.width * number.stream
        recomputed += max(layer, recurrent)
    else:
        kept = text.attending * layer + (text.layers - text.attending) * recurrent
    if training.trains_tower:
        kept += _tower(sizes, patches, number, training)
    chunk = min(row.predicted * text.vocabulary, logits_at_once)
    return PassBytes(
        kept=kept,
        ends=_ends(sizes, row, number, training),
        recomputed=recomputed,
        logits=_BYTES_PER_LOGIT * chunk,
    )


def tuning_pass(
    sizes: ModelSizes,
    row: RowShape,
    predicted: int,
    patches: int,
    number: Precision,
    training: Training,
) -> PassBytes:
    """As `learner_pass` for rows of fine-tuning, of whose tokens `predicted` are trained on.

    TRL's head computes logits in tiles, and gathers the gradient of its whole weights in float32.
    """
    of_layers = learner_pass(sizes, row, patches, number, training)
    width = sizes.text.width
    tile = min(predicted, _TILE_TOKENS) * _TILE_VOCABULARY
    head = 0 if training.lora_rank else _FLOAT32 * sizes.text.vocabulary * width
    return replace(
        of_layers,
        ends=of_layers.ends + predicted * width * number.stream,
        logits=tile * number.compute + predicted * width * _FLOAT32 + head,
    )


def _ends(sizes: ModelSizes, row: RowShape, number: Precision, training: Training) -> int:
    """The last norm, and the head's inputs, which also go to the algorithm."""
    width = sizes.text.width
    normed = number.stream if not training.lora_rank else 0
    of_head = 2 * number.stream + (number.compute if number.converts else 0)
    return row.width * width * (_FLOAT32 + normed) + row.predicted * width * of_head


def _tower(sizes: ModelSizes, patches: int, number: Precision, training: Training) -> int:
    tower = sizes.tower
    layer = (
        patches * tower.width * number.stream
        if training.checkpoints
        else tower_layer(tower, patches, number)
    )
    return tower.layers * layer + tower_ends(sizes, patches, number)
