"""Log-probs of G completions of one prompt, with the prompt and its video computed once.

A plain pass forwards the prompt and encodes the video once per completion. Here a micro-batch of
groups is one row without padding,

    [prompt 1][completion 1.1] ... [completion 1.G][prompt 2][completion 2.1] ...

in which a completion attends to its own prompt and to itself (`train.attention`), at the positions
that it would have alone. Log-probs, gradients and frame attention are those of the plain pass
(`share_prompts=False`, the same signature) up to the rounding of float32 sums. It is one ordinary
call of the model: LoRA, gradient checkpointing and distributed data parallelism work as they do
there.

What a prompt's inputs must hold: the processor's output for one prompt without padding
(`split_prompts` cuts a padded batch): `input_ids` [1, P]; `mm_token_type_ids` [1, P], pixels and
grids where there is media; `second_per_grid_ts` where the model takes it; or, where the positions
are not to be the model's own, `position_ids` [3, 1, P]. A prompt ends in text.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from train.attention import PackedGroup, PackedRow, observing, use_our_attention, why_not_ours
from train.frame_attention import (
    FrameAttention,
    FrameRecorder,
    Look,
    capture_frame_attention,
)
from train.media_features import MediaFeatures, answering_with
from train.prompt_tensors import (
    frames_of_prompt,
    joined_media,
    prompt_positions,
    repeated_media,
    said_as_words,
)
from train.token_scores import DEFAULT_LOGITS_AT_ONCE, head_inputs, token_scores

_log = logging.getLogger(__name__)
_FAMILIES = ("qwen2_5_vl", "qwen3_vl")


@dataclass(frozen=True)
class PromptGroup:
    """One prompt and its completions, each long [C] with C >= 1, end token included."""

    inputs: Mapping[str, Tensor]
    completions: Sequence[Tensor]
    features: MediaFeatures | None = None
    """What a frozen tower said about the media (`train.media_features.encode_media`); shared passes
    then leave the tower out. All groups of a pass have them or none."""


@dataclass(frozen=True)
class GroupScores:
    """What a pass says about the G completions of a prompt; N is the longest one's length."""

    mask: Tensor
    """bool [G, N], the completions' tokens; everything below is 0 outside."""
    logprobs: Tensor
    """float32 [G, N], with gradient."""
    entropies: Tensor
    """float32 [G, N] in nats; with gradient if that was asked for."""
    hidden_states: Tensor
    """[G, N, H], what the LM head read to predict each token; no gradient."""
    frame_attention: Tensor | None
    """float32 [G, N, F], see `train.frame_attention`; None if not asked for."""
    log_normalisers: Tensor | None = None
    """float32 [G, N], logsumexp(logits / temperature); no gradient."""
    all_logprobs: Tensor | None = None
    """float32 [tokens, V], one completion after another, where the backward pass keeps them anyway
    (`train.token_scores`); no gradient."""


def score_groups(
    model: Any,
    groups: Sequence[PromptGroup],
    *,
    temperature: float = 1.0,
    frame_layers: int | None = None,
    share_prompts: bool = True,
    entropy_gradient: bool = False,
    logits_at_once: int = DEFAULT_LOGITS_AT_ONCE,
) -> list[GroupScores]:
    """Score every completion of every group in one call of the model.

    `model` may be wrapped (peft, DistributedDataParallel). Log-probs are those of
    log_softmax(logits / temperature). `frame_layers` asks for frame attention of so many last
    layers (APPO: 3). Where the model cannot share prompts (`why_not_shared`) the plain pass runs,
    and the log says why, once for each reason. At most `logits_at_once` logits exist at a time.
    """
    _check(groups, temperature)
    if share_prompts and (reason := why_not_shared(model)):
        _say_once(f"each completion is forwarded with its own copy of the prompt: {reason}")
        share_prompts = False
    if share_prompts:
        hidden, attention = _packed_pass(model, groups, frame_layers)
    else:
        hidden, attention = _plain_pass(model, groups, frame_layers)
    completions = [completion for group in groups for completion in group.completions]
    of_tokens = token_scores(
        unwrapped(model).get_output_embeddings(),
        hidden,
        torch.cat(completions).to(hidden.device),
        temperature=temperature,
        entropy_gradient=entropy_gradient,
        logits_at_once=logits_at_once,
    )
    table, scores, first = of_tokens.all_logprobs, [], 0
    for group in groups:
        lengths = [len(completion) for completion in group.completions]
        rows = slice(first, first + sum(lengths))
        first = rows.stop
        of_group = [next(attention) for _ in lengths] if frame_layers else None
        scores.append(
            GroupScores(
                mask=_padded(torch.ones_like(of_tokens.logprobs[rows], dtype=torch.bool), lengths),
                logprobs=_padded(of_tokens.logprobs[rows], lengths),
                entropies=_padded(of_tokens.entropies[rows], lengths),
                hidden_states=_padded(hidden[rows].detach(), lengths),
                frame_attention=None if of_group is None else _padded(torch.cat(of_group), lengths),
                log_normalisers=_padded(of_tokens.log_normalisers[rows], lengths),
                all_logprobs=None if table is None else table[rows],
            )
        )
    return scores


def why_not_shared(model: Any) -> str | None:
    """Why completions of `model` cannot share their prompt; None if they can."""
    bare = unwrapped(model)
    text = bare.config.get_text_config()
    if bare.config.model_type not in _FAMILIES:
        return f"{bare.config.model_type} is none of {', '.join(_FAMILIES)}"
    if reason := why_not_ours(bare):
        return reason
    if (rope := text.rope_parameters["rope_type"]) in ("dynamic", "longrope"):
        return f"its rotary positions ({rope}) depend on the length of the row"
    if model.training and text.attention_dropout:
        return "it trains with attention dropout"
    if any(m.p for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.training):
        return "it trains with dropout, which is drawn for each completion apart"
    for name, parameter in bare.named_parameters():
        if hasattr(parameter, "ds_id") or hasattr(parameter, "device_mesh"):
            return f"its weights are sharded over processes ({name})"
    return None


def unwrapped(model: Any) -> Any:
    """The transformers model inside of peft's and distributed wrappers."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), torch.nn.Module):
            model = model.module
        else:
            return model


def _packed_pass(
    model: Any, groups: Sequence[PromptGroup], frame_layers: int | None
) -> tuple[Tensor, Any]:
    """Hidden states [tokens, H] that predict the completions in order, and their attention."""
    bare = unwrapped(model)
    use_our_attention(bare)
    device = groups[0].inputs["input_ids"].device
    ids: list[Tensor] = []
    positions: list[Tensor] = []
    predictors: list[Tensor] = []
    looks: list[Look] = []
    layout = []
    column = 0
    for group in groups:
        prompt_ids = group.inputs["input_ids"][0]
        own_positions = prompt_positions(bare, group.inputs)
        prompt = slice(column, column + len(prompt_ids))
        ids.append(prompt_ids)
        positions.append(own_positions)
        averages = frames_of_prompt(bare.config, group.inputs) if frame_layers else None
        column = prompt.stop
        completions = []
        for completion in group.completions:
            # Nothing attends to the last token and nothing is predicted from it: it stays out.
            own = slice(column, column + len(completion) - 1)
            ids.append(completion[:-1].to(device))
            offsets = torch.arange(1, len(completion), device=device)
            positions.append(own_positions[:, -1:] + offsets)
            column = own.stop
            completions.append(own)
            rows = torch.cat(
                [
                    torch.tensor([prompt.stop - 1], device=device),
                    torch.arange(own.start, own.stop, device=device),
                ]
            )
            predictors.append(rows)
            if averages is not None:
                looks.append(Look(0, rows, (prompt, own), len(prompt_ids), averages))
        layout.append(
            PackedGroup(prompt, tuple(own for own in completions if own.stop > own.start))
        )
    recorder = None
    if frame_layers:
        num_layers = bare.config.get_text_config().num_hidden_layers
        recorder = FrameRecorder(looks, num_layers=num_layers, last=frame_layers)
    features = [group.features for group in groups if group.features is not None]
    row = torch.cat(ids)[None]
    is_completion = torch.ones_like(row, dtype=torch.bool)
    for packed in layout:
        is_completion[:, packed.prompt] = False
    with (
        said_as_words(bare, row, is_completion) as row_ids,
        observing(recorder) if recorder else nullcontext(),
        answering_with(bare, features) if features else nullcontext(),
    ):
        hidden = head_inputs(
            model,
            bare.get_output_embeddings(),
            torch.cat(predictors),
            input_ids=row_ids,
            position_ids=torch.cat(positions, dim=1)[:, None],
            packed_row=PackedRow(tuple(layout)),
            use_cache=False,
            **joined_media([group.inputs for group in groups]),
        )
    return hidden[0], iter(recorder.attention() if recorder else ())


def _plain_pass(
    model: Any, groups: Sequence[PromptGroup], frame_layers: int | None
) -> tuple[Tensor, Any]:
    """As `_packed_pass`, a row [prompt][completion] for each completion and nothing shared."""
    bare = unwrapped(model)
    hidden: list[Tensor] = []
    attention: list[Tensor] = []
    for group in groups:
        lengths = [len(completion) for completion in group.completions]
        prompt = group.inputs["input_ids"]
        num_rows, start = len(lengths), prompt.shape[1]
        tokens = torch.zeros(num_rows, max(lengths), dtype=prompt.dtype, device=prompt.device)
        mask = torch.zeros_like(tokens)
        for row, completion in enumerate(group.completions):
            tokens[row, : len(completion)] = completion
            mask[row, : len(completion)] = 1
        inputs = repeated_media(group.inputs, num_rows)
        ids = torch.cat([prompt.expand(num_rows, -1), tokens], dim=1)
        is_completion = (torch.arange(ids.shape[1], device=ids.device) >= start).expand_as(ids)
        inputs["attention_mask"] = torch.cat(
            [torch.ones_like(prompt).expand(num_rows, -1), mask], 1
        )
        if (kinds := group.inputs.get("mm_token_type_ids")) is not None:
            text = torch.zeros_like(tokens).to(kinds.dtype)
            inputs["mm_token_type_ids"] = torch.cat([kinds.expand(num_rows, -1), text], dim=1)
        if (given := group.inputs.get("position_ids")) is not None:
            own = given[-3:, :, -1:] + torch.arange(1, max(lengths) + 1, device=prompt.device)
            inputs["position_ids"] = torch.cat([given[-3:], own], 2).expand(-1, num_rows, -1)
        with said_as_words(bare, ids, is_completion) as inputs["input_ids"]:
            capture: AbstractContextManager[FrameAttention | None] = nullcontext()
            if frame_layers:
                capture = capture_frame_attention(
                    bare,
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    video_grid_thw=inputs.get("video_grid_thw"),
                    first_token=start,
                    num_tokens=max(lengths),
                    num_layers=frame_layers,
                )
            with capture as frames:
                predictors = torch.arange(start - 1, start - 1 + max(lengths), device=ids.device)
                states = head_inputs(
                    model, bare.get_output_embeddings(), predictors, use_cache=False, **inputs
                )
        hidden += [row[:length] for row, length in zip(states, lengths, strict=True)]
        if frames is not None:
            rows = zip(frames.result(), lengths, strict=True)
            attention += [row[:length] for row, length in rows]
    return torch.cat(hidden), iter(attention)


def _padded(rows: Tensor, lengths: list[int]) -> Tensor:
    """[tokens, ...] of ragged completions, one after another -> [G, N, ...] with zeros behind."""
    return pad_sequence(list(torch.split(rows, lengths)), batch_first=True)


def _check(groups: Sequence[PromptGroup], temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if not groups:
        raise ValueError("a pass needs at least one group, got none")
    if len({group.features is None for group in groups}) > 1:
        raise ValueError("some groups bring media features and some do not; give all or none")
    for number, group in enumerate(groups):
        shape = list(group.inputs["input_ids"].shape)
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(
                f"group {number}: input_ids must be [1, P], one prompt without padding, got"
                f" {shape}; train.prompt_tensors.split_prompts cuts a batch"
            )
        if not group.completions or any(not len(completion) for completion in group.completions):
            raise ValueError(
                f"group {number} has an empty completion or none; each needs a token (the end"
                " token counts)"
            )


@cache
def _say_once(message: str) -> None:
    _log.warning(message)
