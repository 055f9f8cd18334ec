"""Shared-prefix forward: log-probs of G completions, with their prompt and video computed once.

A plain pass forwards the prompt and encodes the video once per completion. Here a micro-batch of
groups is one row without padding,

    [prompt 1][completion 1.1] ... [completion 1.G][prompt 2][completion 2.1] ...

in which a completion attends to its own prompt and to itself (`train.modeling.attention`), at the
positions that it would have alone. Log-probs, gradients and frame attention equal those of the
plain pass (`share_prompts=False`, same signature) up to the rounding of float32 sums. It is one
ordinary call of the model, so LoRA, gradient checkpointing and training on many GPUs (distributed
data parallelism, FSDP2) work.

A prompt's inputs are the processor's output for one prompt without padding: `input_ids` [1, P];
with media also `mm_token_type_ids` [1, P], pixels and grids, and `second_per_grid_ts` where the
model takes it; optionally `position_ids` [3, 1, P] in place of the model's own positions. A prompt
ends in text.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from train.modeling.attention import (
    PackedGroup,
    PackedLayout,
    observing,
    use_our_attention,
    why_not_supported,
)
from train.modeling.families import attention_layers, family_names, find_family
from train.modeling.frame_attention import (
    FrameAttention,
    FrameQueries,
    FrameRecorder,
    capture_frame_attention,
)
from train.modeling.logprobs import (
    DEFAULT_LOGITS_AT_ONCE,
    HeadOptions,
    TokenLogprobs,
    scored_in_head,
)
from train.modeling.prompt_tensors import (
    frames_of_prompt,
    joined_media,
    placeholders_as_text,
    prompt_positions,
    repeated_media,
)
from train.modeling.sharding import unwrapped, why_not_gathered
from train.modeling.vision_cache import MediaFeatures, with_cached_vision_features

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptGroup:
    """One prompt and its completions, each long [C] with C >= 1, end token included."""

    inputs: Mapping[str, Tensor]
    completions: Sequence[Tensor]
    features: MediaFeatures | None = None
    """A frozen tower's features of the media (`train.modeling.vision_cache.encode_media`), which
    packed passes use instead of running the tower. All groups of a pass have them or none."""


@dataclass(frozen=True)
class GroupLogprobs:
    """Log-probs of the G completions of a prompt and what came with them; N is the longest one's
    length."""

    mask: Tensor
    """bool [G, N], the completions' tokens; everything below is 0 outside."""
    logprobs: Tensor
    """float32 [G, N], with gradient."""
    entropies: Tensor
    """float32 [G, N] in nats; with gradient if requested."""
    hidden_states: Tensor
    """[G, N, H], what the LM head read to predict each token; no gradient."""
    frame_attention: Tensor | None
    """float32 [G, N, F], see `train.modeling.frame_attention`; None if not requested."""
    log_normalisers: Tensor | None = None
    """float32 [G, N], logsumexp(logits / temperature); no gradient."""
    all_logprobs: Tensor | None = None
    """float32 [tokens, V], one completion after another, where the backward pass keeps them anyway
    (`train.modeling.logprobs`); no gradient."""


def group_logprobs(
    model: Any,
    groups: Sequence[PromptGroup],
    *,
    temperature: float = 1.0,
    frame_layers: int | None = None,
    share_prompts: bool = True,
    entropy_gradient: bool = False,
    logits_at_once: int = DEFAULT_LOGITS_AT_ONCE,
) -> list[GroupLogprobs]:
    """Log-probs of every completion of every group, in one call of the model.

    `model` may be wrapped (peft, DistributedDataParallel, FSDP2). Log-probs are those of
    log_softmax(logits / temperature). `frame_layers` requests frame attention, averaged over that
    number of last layers (APPO: 3). Where the model cannot share prompts (`why_not_shared`) the
    plain pass runs, and each reason is logged once. At most `logits_at_once` logits exist at a
    time. Raises ValueError for groups without completions and for prompts that are padded.
    """
    _check(groups, temperature)
    if share_prompts and (reason := why_not_shared(model)):
        _say_once(f"each completion is forwarded with its own copy of the prompt: {reason}")
        share_prompts = False
    run = _packed_pass if share_prompts else _plain_pass
    options = HeadOptions(temperature, entropy_gradient, logits_at_once)
    return [
        _of_group(group, *found)
        for group, found in zip(groups, run(model, groups, frame_layers, options), strict=True)
    ]


_Scored = tuple[TokenLogprobs, Tensor, list[Tensor] | None]
"""Of a group's tokens, one completion after another: log-probs, the head's inputs [T, H], and each
completion's frame attention [C, F]."""


def _of_group(
    group: PromptGroup, own: TokenLogprobs, hidden: Tensor, attention: list[Tensor] | None
) -> GroupLogprobs:
    lengths = [len(completion) for completion in group.completions]
    return GroupLogprobs(
        mask=_padded(torch.ones_like(own.logprobs, dtype=torch.bool), lengths),
        logprobs=_padded(own.logprobs, lengths),
        entropies=_padded(own.entropies, lengths),
        hidden_states=_padded(hidden, lengths),
        frame_attention=None if attention is None else _padded(torch.cat(attention), lengths),
        log_normalisers=_padded(own.log_normalisers, lengths),
        all_logprobs=own.all_logprobs,
    )


def joined(parts: Sequence[GroupLogprobs]) -> GroupLogprobs:
    """The completions of one prompt that were forwarded in parts, in their order."""

    def column(name: str) -> Any:
        tensors = [getattr(part, name) for part in parts]
        if any(tensor is None for tensor in tensors):
            return None
        if name == "all_logprobs":
            return torch.cat(tensors)
        return pad_sequence([row for tensor in tensors for row in tensor], batch_first=True)

    return GroupLogprobs(**{each.name: column(each.name) for each in fields(GroupLogprobs)})


def why_not_shared(model: Any) -> str | None:
    """Why completions of `model` cannot share their prompt; None if they can."""
    bare = unwrapped(model)
    text = bare.config.get_text_config()
    if find_family(bare.config.model_type) is None:
        return f"{bare.config.model_type} is not of the family {family_names()}"
    if reason := why_not_supported(bare):
        return reason
    if (rope := text.rope_parameters["rope_type"]) in ("dynamic", "longrope"):
        return f"its rotary positions ({rope}) depend on the length of the row"
    if model.training and text.attention_dropout:
        return "it trains with attention dropout"
    if any(m.p for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.training):
        return "it trains with dropout, which is drawn for each completion apart"
    return why_not_gathered(model)


def _packed_pass(
    model: Any, groups: Sequence[PromptGroup], frame_layers: int | None, options: HeadOptions
) -> Iterator[_Scored]:
    """What each group's completions are scored by, in one row."""
    bare = unwrapped(model)
    use_our_attention(bare)
    row = _PackedTokens(groups[0].inputs["input_ids"].device)
    for group in groups:
        averages = frames_of_prompt(bare.config, group.inputs) if frame_layers else None
        row.append(group, prompt_positions(bare, group.inputs), averages)
    recorder = None
    if frame_layers:
        layers = attention_layers(bare.config)
        recorder = FrameRecorder(row.frame_queries, layers=layers, last=frame_layers)
    features = [group.features for group in groups if group.features is not None]
    with (
        placeholders_as_text(bare, *row.ids_and_completions()) as input_ids,
        observing(recorder) if recorder else nullcontext(),
        with_cached_vision_features(bare, features) if features else nullcontext(),
    ):
        of_tokens, hidden = scored_in_head(
            model,
            bare.get_output_embeddings(),
            torch.cat(row.predictors),
            torch.cat([completion for group in groups for completion in group.completions]),
            options,
            input_ids=input_ids,
            position_ids=torch.cat(row.positions, dim=1)[:, None],
            packed_layout=PackedLayout(tuple(row.groups)),
            use_cache=False,
            **joined_media([group.inputs for group in groups]),
        )
    attention, first = iter(recorder.attention() if recorder else ()), 0
    for group in groups:
        own = slice(first, first + sum(len(completion) for completion in group.completions))
        first = own.stop
        of_group = [next(attention) for _ in group.completions] if recorder else None
        yield of_tokens.part(own), hidden[own], of_group


@dataclass
class _PackedTokens:
    """The tokens of a packed row, appended prompt by prompt."""

    device: torch.device
    ids: list[Tensor] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    predictors: list[Tensor] = field(default_factory=list)
    """Of each completion the columns that predict its tokens."""
    frame_queries: list[FrameQueries] = field(default_factory=list)
    groups: list[PackedGroup] = field(default_factory=list)
    width: int = 0

    def append(self, group: PromptGroup, positions: Tensor, averages: Tensor | None) -> None:
        """Add a prompt at `positions` [3, P], with its completions behind it."""
        prompt = self._take(group.inputs["input_ids"][0], positions)
        completions = []
        for completion in group.completions:
            # Nothing attends to the last token and nothing is predicted from it: it stays out.
            offsets = torch.arange(1, len(completion), device=self.device)
            own = self._take(completion[:-1].to(self.device), positions[:, -1:] + offsets)
            columns = [prompt.stop - 1, *range(own.start, own.stop)]
            predictors = torch.tensor(columns, device=self.device)
            self.predictors.append(predictors)
            if averages is not None:
                visible = prompt.stop - prompt.start
                self.frame_queries.append(
                    FrameQueries(0, predictors, (prompt, own), visible, averages)
                )
            if own.stop > own.start:
                completions.append(own)
        self.groups.append(PackedGroup(prompt, tuple(completions)))

    def _take(self, ids: Tensor, positions: Tensor) -> slice:
        self.ids.append(ids)
        self.positions.append(positions)
        columns = slice(self.width, self.width + len(ids))
        self.width = columns.stop
        return columns

    def ids_and_completions(self) -> tuple[Tensor, Tensor]:
        """Ids long [1, L], and bool [1, L]: which of them are completions' tokens."""
        ids = torch.cat(self.ids)[None]
        is_completion = torch.ones_like(ids, dtype=torch.bool)
        for group in self.groups:
            is_completion[:, group.prompt] = False
        return ids, is_completion


def _plain_pass(
    model: Any, groups: Sequence[PromptGroup], frame_layers: int | None, options: HeadOptions
) -> Iterator[_Scored]:
    """As `_packed_pass`, with a row [prompt][completion] per completion and nothing shared."""
    bare = unwrapped(model)
    for group in groups:
        lengths = [len(completion) for completion in group.completions]
        start = group.inputs["input_ids"].shape[1]
        inputs = _plain_inputs(group, max(lengths))
        ids = inputs["input_ids"]
        columns = torch.arange(ids.shape[1], device=ids.device)
        is_completion = (columns >= start).expand_as(ids)
        with placeholders_as_text(bare, ids, is_completion) as inputs["input_ids"]:
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
                of_tokens, hidden = scored_in_head(
                    model,
                    bare.get_output_embeddings(),
                    columns[start - 1 : -1],
                    torch.cat(list(group.completions)),
                    options,
                    lengths,
                    use_cache=False,
                    **inputs,
                )
        attention = None
        if frames is not None:
            rows = zip(frames.result(), lengths, strict=True)
            attention = [row[:length] for row, length in rows]
        yield of_tokens, hidden, attention


def _plain_inputs(group: PromptGroup, width: int) -> dict[str, Tensor]:
    """Inputs of G rows, the prompt in front of each completion, which is padded to `width`."""
    prompt, num_rows = group.inputs["input_ids"], len(group.completions)
    tokens = torch.zeros(num_rows, width, dtype=prompt.dtype, device=prompt.device)
    mask = torch.zeros_like(tokens)
    for row, completion in enumerate(group.completions):
        tokens[row, : len(completion)] = completion
        mask[row, : len(completion)] = 1

    def behind_prompts(of_prompt: Tensor, of_completions: Tensor) -> Tensor:
        return torch.cat([of_prompt.expand(num_rows, -1), of_completions], dim=1)

    inputs = repeated_media(group.inputs, num_rows)
    inputs["input_ids"] = behind_prompts(prompt, tokens)
    inputs["attention_mask"] = behind_prompts(torch.ones_like(prompt), mask)
    if (kinds := group.inputs.get("mm_token_type_ids")) is not None:
        text = torch.zeros_like(tokens).to(kinds.dtype)
        inputs["mm_token_type_ids"] = behind_prompts(kinds, text)
    if (given := group.inputs.get("position_ids")) is not None:
        own = given[-3:, :, -1:] + torch.arange(1, width + 1, device=prompt.device)
        inputs["position_ids"] = torch.cat([given[-3:], own], 2).expand(-1, num_rows, -1)
    return inputs


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
                f" {shape}; make a group of each prompt of a batch"
            )
        if not group.completions or any(not len(completion) for completion in group.completions):
            raise ValueError(
                f"group {number} has an empty completion or none; each needs a token (the end"
                " token counts)"
            )


@cache
def _say_once(message: str) -> None:
    _log.warning(message)
