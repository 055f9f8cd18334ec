"""Samples completions; each prompt and its video is computed once, whatever the group size.

All prompts go through the model in packed rows without padding; then every completion of every
prompt grows by one token per forward, attending to its prompt's one set of keys and values
(`train.rollouts.kv_cache`). Rows that ended leave the batch. Greedy tokens are those of
transformers' `generate`, which is also the plain path (`share_prompts=False`, and where the model
cannot share: `why_not_shared`).

A prompt is what `train.data.model_inputs` gives: the processor's output for one prompt without
padding, with `position_ids` [3, 1, P] where the positions are not to be the model's own;
completions count on from the prompt's last position.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from train.modeling.attention import PackedGroup, PackedLayout, use_our_attention
from train.modeling.families import attention_layers
from train.modeling.lora import adapters_in_weights
from train.modeling.packed_forward import why_not_shared
from train.modeling.partial_attention import why_no_kernel
from train.modeling.prompt_tensors import joined_media, prompt_positions, repeated_media
from train.modeling.sharding import unwrapped, whole_weights
from train.modeling.vision_cache import MediaFeatures, with_cached_vision_features
from train.rollouts.kv_cache import PromptCache, SharedCache
from train.rollouts.streaming import Drawn, Progress
from train.rollouts.token_sampling import (
    Sampling,
    ScoresOfGenerate,
    are_finite,
    next_tokens_with_logprobs,
    refuse_not_finite,
    row_draws,
)

__all__ = ["Sampling", "sample_completions", "sample_rollouts"]

_Tell = Callable[[Tensor], None]
_log = logging.getLogger(__name__)
_PREFILL_AT_ONCE = 2**14
"""Tokens of prompts in one packed row: bounds the memory of a large batch's prefill."""
_STEPS_BETWEEN_LOOKS = 16
"""On a GPU, reading sampled tokens waits for all steps in flight; so not after each one."""


def sample_completions(
    model: Any, prompts: Sequence[Mapping[str, Tensor]], **options: Any
) -> list[list[Tensor]]:
    """The tokens of `sample_rollouts`."""
    return sample_rollouts(model, prompts, **options).tokens


@torch.no_grad()
def sample_rollouts(
    model: Any,
    prompts: Sequence[Mapping[str, Tensor]],
    *,
    group_size: int,
    sampling: Sampling,
    end_ids: Sequence[int],
    seeds: Sequence[int] | None = None,
    features: Sequence[MediaFeatures] | None = None,
    share_prompts: bool = True,
    merge_adapters: bool | None = None,
    groups_at_once: int | None = None,
    progress: Progress | None = None,
) -> Drawn:
    """Draw `group_size` completions of each prompt: long [C] on the CPU, C >= 1, and log-probs.

    A completion ends with the first of `end_ids`, which it then holds, or at
    `sampling.max_new_tokens`. What a group samples depends on its prompt and its seed (an integer
    of 0 or above; None takes one from torch's generator), not on the other prompts.
    `model` may be wrapped (peft, DistributedDataParallel, FSDP2); its training mode and rope deltas
    are left as they were. Under FSDP2 every process calls this, each with prompts of its own.
    `features` is what a tower that does not change said about each prompt's media
    (`train.modeling.vision_cache.encode_media`); the plain path runs its tower anyway.
    With `merge_adapters`, LoRA adapters are added to copies of the weights meanwhile; None does so
    where the base is in float32, as a narrower format rounds small updates away. At most
    `groups_at_once` prompts' completions grow together; None is all of them, which takes the least
    time and the most memory.
    `progress` is called every 16 tokens, except by the plain path. There are no log-probs at
    temperature 0. Raises ValueError for input that makes no sense, and
    NotFiniteError where the model computes NaN or infinities.
    """
    _check(prompts, group_size, seeds, features, groups_at_once)
    if seeds is None:
        seeds = torch.randint(2**62, (len(prompts),)).tolist()
    bare = unwrapped(model)
    device = bare.get_input_embeddings().weight.device
    prompts = [{name: value.to(device) for name, value in one.items()} for one in prompts]
    if merge_adapters is None:
        merge_adapters = bare.get_input_embeddings().weight.dtype == torch.float32
    merged = adapters_in_weights(model) if merge_adapters else nullcontext()
    with _in_evaluation(model, bare), whole_weights(model), merged:
        reason = why_not_shared(model) or why_no_kernel(device)
        if share_prompts and reason:
            _say_once(f"completions are sampled from copies of their prompt: {reason}")
            share_prompts = False
        draw = _draw_shared if share_prompts else _draw_plainly
        parts = []
        for part in _parts(len(prompts), groups_at_once or len(prompts)):
            known = None if features is None else features[part]
            tell = None
            if progress is not None:
                tell = partial(progress, first_row=part.start * group_size)
            parts.append(
                draw(bare, prompts[part], group_size, sampling, end_ids, seeds[part], known, tell)
            )
    tokens = torch.cat([own for own, _ in parts]).cpu()
    known_logprobs = [own for _, own in parts if own is not None]
    logprobs = torch.cat(known_logprobs) if known_logprobs else None
    lengths = [_length(row, end_ids) for row in tokens]

    def groups(rows: Tensor) -> list[list[Tensor]]:
        ended = [row[:length].clone() for row, length in zip(rows, lengths, strict=True)]
        return [ended[first : first + group_size] for first in range(0, len(rows), group_size)]

    return Drawn(groups(tokens), None if logprobs is None else groups(logprobs.cpu()))


def _draw_shared(
    model: Any,
    prompts: Sequence[Mapping[str, Tensor]],
    group_size: int,
    sampling: Sampling,
    end_ids: Sequence[int],
    seeds: Sequence[int],
    features: Sequence[MediaFeatures] | None,
    tell: _Tell | None,
) -> tuple[Tensor, Tensor | None]:
    """Tokens [prompts * group_size, steps] and log-probs; those behind an end are meaningless."""
    use_our_attention(model)
    positions = [prompt_positions(model, inputs) for inputs in prompts]
    logits, prompt_cache = _prefill(model, prompts, positions, features)
    rows = SharedCache(prompt_cache, attention_layers(model.config), group_size)
    device = logits.device
    logits = logits.repeat_interleave(group_size, dim=0)
    last = torch.stack([own[:, -1] for own in positions], dim=1)
    last = last.repeat_interleave(group_size, dim=1)[:, :, None]
    ends = torch.tensor(list(end_ids), device=device)
    draws = None
    if sampling.temperature:
        draws = row_draws(seeds, group_size, sampling.max_new_tokens).to(device)
    seen = None
    if sampling.repetition_penalty != 1:
        seen = torch.zeros(len(logits), logits.shape[-1], dtype=torch.bool, device=device)
        for number, inputs in enumerate(prompts):
            seen[number * group_size : (number + 1) * group_size, inputs["input_ids"][0]] = True
    steps_between_looks = 1 if device.type == "cpu" else _STEPS_BETWEEN_LOOKS
    tokens = torch.zeros(len(logits), sampling.max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(tokens.shape, device=device) if sampling.temperature else None
    alive = torch.arange(len(logits), device=device)
    has_ended = torch.zeros(len(logits), dtype=torch.bool, device=device)
    is_finite = torch.ones((), dtype=torch.bool, device=device)
    for step in range(sampling.max_new_tokens):
        is_finite &= are_finite(logits)
        chosen, own_logprobs = next_tokens_with_logprobs(
            logits,
            sampling,
            draws=None if draws is None else draws[alive, step],
            seen=None if seen is None else seen[alive],
        )
        tokens[alive, step] = chosen
        if logprobs is not None and own_logprobs is not None:
            logprobs[alive, step] = own_logprobs
        if seen is not None:
            seen[alive, chosen] = True
        has_ended |= torch.isin(chosen, ends)
        if step + 1 == sampling.max_new_tokens:
            break
        if tell is not None and step and step % _STEPS_BETWEEN_LOOKS == 0:
            tell(tokens[:, : step + 1])
        if step % steps_between_looks == 0:
            refuse_not_finite(is_finite)
            kept = [row for row, ended in enumerate(has_ended.tolist()) if not ended]
            if not kept:
                break
            if len(kept) < len(has_ended):
                rows.keep(kept)
                index = torch.tensor(kept, device=device)
                alive, has_ended, chosen = alive[index], has_ended[index], chosen[index]
                last = last[:, index]
        logits = model(
            input_ids=chosen[:, None],
            position_ids=last + step + 1,
            past_key_values=rows,
            row_cache=rows,
            use_cache=True,
        ).logits[:, -1]
    refuse_not_finite(is_finite)
    return tokens, logprobs


def _prefill(
    model: Any,
    prompts: Sequence[Mapping[str, Tensor]],
    positions: Sequence[Tensor],
    features: Sequence[MediaFeatures] | None,
) -> tuple[Tensor, PromptCache]:
    """Logits [prompts, V] after each prompt, and the prompts' keys and values."""
    kept = PromptCache()
    logits = []
    for part in _rows_of([inputs["input_ids"].shape[1] for inputs in prompts]):
        inputs = prompts[part]
        lengths = [each["input_ids"].shape[1] for each in inputs]
        stops = torch.tensor(lengths).cumsum(0).tolist()
        columns = [slice(stop - own, stop) for stop, own in zip(stops, lengths, strict=True)]
        kept.begin_row(lengths)
        known = [] if features is None else features[part]
        with with_cached_vision_features(model, known) if known else nullcontext():
            output = model(
                input_ids=torch.cat([each["input_ids"] for each in inputs], dim=1),
                position_ids=torch.cat(list(positions[part]), dim=1)[:, None],
                packed_layout=PackedLayout(tuple(PackedGroup(own, ()) for own in columns)),
                past_key_values=kept,
                use_cache=True,
                logits_to_keep=torch.tensor(stops, device=positions[0].device) - 1,
                **joined_media(inputs),
            )
        logits.append(output.logits[0])
    return torch.cat(logits), kept


def _parts(count: int, at_once: int) -> list[slice]:
    return [slice(first, first + at_once) for first in range(0, count, at_once)]


def _rows_of(lengths: Sequence[int]) -> Iterator[slice]:
    """Neighbouring prompts that share a packed row."""
    first, total = 0, 0
    for number, length in enumerate(lengths):
        if total and total + length > _PREFILL_AT_ONCE:
            yield slice(first, number)
            first, total = number, 0
        total += length
    yield slice(first, len(lengths))


def _draw_plainly(
    model: Any,
    prompts: Sequence[Mapping[str, Tensor]],
    group_size: int,
    sampling: Sampling,
    end_ids: Sequence[int],
    seeds: Sequence[int],
    _: Sequence[MediaFeatures] | None,
    __: _Tell | None,
) -> tuple[Tensor, Tensor | None]:
    """As `_draw_shared`, by transformers' `generate` on `group_size` copies of each prompt."""
    options: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        options = {
            "do_sample": True,
            "temperature": float(sampling.temperature),
            "top_k": sampling.top_k,
            "top_p": float(sampling.top_p),
            "min_p": float(sampling.min_p),
        }
    end = list(end_ids) or None
    tokens: list[Tensor] = []
    logprobs: list[Tensor] = []
    # A checkpoint's own generation settings would fill in every option that is not given here.
    proposed = model.generation_config
    model.generation_config = type(proposed)()
    try:
        for number, inputs in enumerate(prompts):
            ids = inputs["input_ids"].expand(group_size, -1)
            kinds = inputs.get("mm_token_type_ids", torch.zeros_like(inputs["input_ids"]))
            own = prompt_positions(model, inputs)[:, None].expand(-1, group_size, -1)
            scores = ScoresOfGenerate(sampling)
            text = torch.arange(ids.shape[1], device=ids.device).expand(1, group_size, -1)
            with torch.random.fork_rng(devices=[ids.device] if ids.is_cuda else []):
                torch.manual_seed(seeds[number])
                output = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    mm_token_type_ids=kinds.expand(group_size, -1),
                    position_ids=torch.cat([text, own]),
                    max_new_tokens=sampling.max_new_tokens,
                    repetition_penalty=float(sampling.repetition_penalty),
                    eos_token_id=end,
                    pad_token_id=end[0] if end else 0,
                    logits_processor=[scores],
                    **options,
                    **repeated_media(inputs, group_size),
                )
            missing = (0, ids.shape[1] + sampling.max_new_tokens - output.shape[1])
            tokens.append(torch.nn.functional.pad(output[:, ids.shape[1] :], missing))
            known = scores.logprobs(output[:, -1])
            if known is not None:
                logprobs.append(torch.nn.functional.pad(known, missing))
    finally:
        model.generation_config = proposed
    return torch.cat(tokens), torch.cat(logprobs) if logprobs else None


def _length(tokens: Tensor, end_ids: Sequence[int]) -> int:
    """Tokens of a row up to and with its first end token."""
    ends = torch.isin(tokens, torch.tensor(list(end_ids), dtype=tokens.dtype)).nonzero()
    return int(ends[0]) + 1 if len(ends) else len(tokens)


@contextmanager
def _in_evaluation(model: Any, bare: Any) -> Iterator[None]:
    """No dropout and no gradient checkpointing in this block; afterwards all is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    deltas = bare.model.rope_deltas
    model.eval()
    try:
        yield
    finally:
        bare.model.rope_deltas = deltas
        for module, was_training in modes:
            module.training = was_training


def _check(
    prompts: Sequence[Mapping[str, Tensor]],
    group_size: int,
    seeds: Sequence[int] | None,
    features: Sequence[MediaFeatures] | None,
    groups_at_once: int | None,
) -> None:
    if not prompts:
        raise ValueError("completions need at least one prompt, got none")
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, got {group_size}")
    if groups_at_once is not None and groups_at_once < 1:
        raise ValueError(f"groups_at_once must be at least 1, got {groups_at_once}")
    for name, given in (("seeds", seeds), ("features", features)):
        if given is not None and len(given) != len(prompts):
            raise ValueError(f"{name} must be one for each of {len(prompts)} prompts, got {given}")
    if seeds is not None and min(seeds) < 0:
        raise ValueError(f"seeds must be 0 or above, got {min(seeds)}")
    for number, inputs in enumerate(prompts):
        shape = list(inputs["input_ids"].shape)
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(
                f"prompt {number}: input_ids must be [1, P], one prompt without padding, got"
                f" {shape}; give each prompt of a batch by itself"
            )


@cache
def _say_once(message: str) -> None:
    _log.warning(message)
