"""How much each generated token looks at each frame of the video, beside ordinary SDPA.

APPO (arXiv:2602.23823) needs, for token n of a completion and frame t,

    F_nt = mean over layers, heads and the frame's vision tokens v of A[query that predicts n, v]

with A the softmax weights over all keys that the query sees: raw attention mass per vision token,
not normalised again over frames. The published code keeps every layer's weights while it samples
with eager attention. Here they follow from the queries and keys of the last layers in a
teacher-forced forward: the rows of the completion only, a chunk of rows at a time, in float32.

A frame is a temporal cell of the video tower (Qwen models merge two sampled frames). Tokens of
images have another id and never count.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.attention import observing, use_our_attention
from train.divergence import at_least_float32

DEFAULT_LAYERS = 3
DEFAULT_QUERY_CHUNK = 64


def frame_columns(
    input_ids: Tensor, video_grid_thw: Tensor | None, *, video_token_id: int, merge_size: int
) -> tuple[Tensor, list[int]]:
    """Which frame each token belongs to: ids [B, L] -> (long [B, L], -1 = none; frames per row).

    `video_grid_thw` [videos, 3] in patches, in the order in which rows and videos come. Frames of
    several videos of a row are counted on: those of the second follow those of the first. Raises
    ValueError when grids and tokens do not agree.
    """
    frames = torch.full_like(input_ids, -1)
    grids = [] if video_grid_thw is None else video_grid_thw.tolist()
    used, frames_per_row = 0, []
    for row, ids in enumerate(input_ids):
        columns = (ids == video_token_id).nonzero()[:, 0]
        filled = num_frames = 0
        while filled < len(columns) and used < len(grids):
            cells, height, width = grids[used]
            size = height * width // merge_size**2
            numbers = torch.arange(num_frames, num_frames + cells, device=ids.device)
            here = columns[filled : filled + cells * size]
            frames[row, here] = numbers.repeat_interleave(size)[: len(here)]
            used, filled, num_frames = used + 1, filled + cells * size, num_frames + cells
        if filled != len(columns):
            raise ValueError(
                f"row {row} has {len(columns)} video tokens, but its videos' grids"
                f" {grids[:used]} make {filled}: give the ids and video_grid_thw of one batch"
            )
        frames_per_row.append(num_frames)
    if used != len(grids):
        raise ValueError(
            f"video_grid_thw names {len(grids)} videos, but the ids hold tokens of {used} only"
        )
    return frames, frames_per_row


@dataclass(frozen=True)
class Look:
    """Whose attention to what: R queries in a row of a forward and the keys that they see.

    `queries` [R] are columns; `keys` are column ranges, in reading order; the first query sees
    the first `visible` keys, every further one sees one key more. `frames` [K', numbers of frames]
    averages the first K' keys: 1 / (tokens of the frame) where a key belongs to it, else 0.
    """

    row: int
    queries: Tensor
    keys: tuple[slice, ...]
    visible: int
    frames: Tensor


def frame_averages(frames: Tensor, num_frames: int) -> Tensor:
    """Frame of each key, -1 = none: long [K] -> float32 [K', F]; K' ends behind the last frame."""
    is_frame = (frames >= 0).nonzero()[:, 0]
    length = int(is_frame[-1]) + 1 if len(is_frame) else 0
    belongs = frames[:length, None] == torch.arange(num_frames, device=frames.device)
    return belongs / belongs.sum(dim=0).clamp(min=1)


class FrameRecorder:
    """Observes the last layers of one forward and keeps their mean attention per frame."""

    def __init__(
        self,
        looks: Sequence[Look],
        *,
        num_layers: int,
        last: int = DEFAULT_LAYERS,
        query_chunk: int = DEFAULT_QUERY_CHUNK,
    ) -> None:
        if not 1 <= last <= num_layers:
            raise ValueError(
                f"attention can be taken from the last 1 to {num_layers} layers, not {last}"
            )
        self._looks = looks
        self._layers = range(num_layers - last, num_layers)
        self._seen: set[int] = set()
        self._query_chunk = query_chunk
        self._sums: list[Tensor] = []

    def observe(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Add one layer's attention, if it is one of the last ones."""
        if layer not in self._layers:
            return
        if layer in self._seen:
            raise RuntimeError(
                "frame attention was asked of one forward, but a second one (or the backward pass"
                " with gradient checkpointing) ran before its block ended"
            )
        shares = [self._share(look, query, key, scaling) for look in self._looks]
        if self._seen:
            shares = [before + share for before, share in zip(self._sums, shares, strict=True)]
        self._sums = shares
        self._seen.add(layer)

    def _share(self, look: Look, query: Tensor, key: Tensor, scaling: float) -> Tensor:
        longest = max([int(look.queries.max()) + 1, *(part.stop for part in look.keys)])
        if longest > key.shape[2] or query.shape[2] != key.shape[2]:
            raise RuntimeError(
                "frame attention needs a forward over whole sequences (no key-value cache):"
                f" {longest} columns were announced, {query.shape[2]} queries and {key.shape[2]}"
                " keys came"
            )
        queries = query[look.row].index_select(1, look.queries)
        keys = torch.cat([key[look.row, :, part] for part in look.keys], dim=1)
        return frame_mass(
            queries, keys, look.visible, look.frames, scaling, query_chunk=self._query_chunk
        )

    def attention(self) -> list[Tensor]:
        """[R, F] of each look, the mean over layers."""
        if len(self._seen) != len(self._layers):
            raise RuntimeError(
                f"of layers {list(self._layers)} only {sorted(self._seen)} ran: call the model"
                " inside the block, then ask for its frame attention"
            )
        return [total / len(self._layers) for total in self._sums]


def frame_mass(
    query: Tensor,
    key: Tensor,
    visible: int,
    frames: Tensor,
    scaling: float,
    *,
    query_chunk: int = DEFAULT_QUERY_CHUNK,
) -> Tensor:
    """Mean attention weight of each query on each frame's tokens, over the heads.

    `query` [heads, R, D], `key` [key-value heads, K, D], `frames` [K', F] -> [R, F]. Query n sees
    the first `visible` + n keys. At most heads * `query_chunk` * K numbers exist at a time; heads
    that share keys are laid under one another, so keys are not repeated.
    """
    num_heads, num_queries, width = query.shape
    kv_heads = len(key)
    query, key = at_least_float32(query) * scaling, at_least_float32(key)
    frames = frames.to(query.dtype)
    masses = []
    for start in range(0, num_queries, query_chunk):
        rows = query[:, start : start + query_chunk]
        num_rows = rows.shape[1]
        num_keys = visible + start + num_rows - 1
        folded = rows.reshape(kv_heads, num_heads // kv_heads * num_rows, width)
        scores = torch.bmm(folded, key[:, :num_keys].transpose(1, 2))
        scores = scores.view(num_heads, num_rows, num_keys)
        is_later = torch.ones(num_rows, num_rows, dtype=torch.bool, device=query.device).triu(1)
        scores[:, :, num_keys - num_rows :].masked_fill_(is_later, -torch.inf)
        weights = scores.softmax(dim=-1)[:, :, : len(frames)].mean(dim=0)
        masses.append(weights @ frames)
    return torch.cat(masses)


class FrameAttention:
    """The result of a `capture_frame_attention` block."""

    def __init__(self, recorder: FrameRecorder, rows: int, tokens: int, frames: int) -> None:
        self._recorder = recorder
        self._shape = (rows, tokens, frames)

    def result(self) -> Tensor:
        """float32 [B, N, F]; 0 at tokens behind a row's end and at frames that a row lacks."""
        looks = self._recorder.attention()
        result = looks[0].new_zeros(self._shape)
        for row, attention in enumerate(looks):
            result[row, : attention.shape[0], : attention.shape[1]] = attention
        return result


@contextmanager
def capture_frame_attention(
    model: Any,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    video_grid_thw: Tensor | None,
    first_token: int | Tensor,
    num_tokens: int,
    num_layers: int = DEFAULT_LAYERS,
    query_chunk: int = DEFAULT_QUERY_CHUNK,
) -> Iterator[FrameAttention]:
    """Record frame attention [B, N, F] of the one forward over `input_ids` [B, L] in this block.

    Columns `first_token` (one for all rows, or a tensor [B]) to `first_token + num_tokens - 1` are
    the tokens asked about; row n of the result belongs to the position before, which predicts token
    n. Rows may be padded on both sides. `model` is the bare transformers model; from then on its
    text layers attend through `train.attention`, which equals SDPA. Taken from the last
    `num_layers` layers; [B, N, 0] for batches without a video.
    """
    config = model.config
    frames, frames_per_row = frame_columns(
        input_ids,
        video_grid_thw,
        video_token_id=config.video_token_id,
        merge_size=config.vision_config.spatial_merge_size,
    )
    firsts = torch.as_tensor(first_token, device=input_ids.device).expand(len(input_ids)).tolist()
    looks = []
    for row, first in enumerate(firsts):
        start, stop = _real_columns(attention_mask[row], row)
        last = min(first + num_tokens, stop)
        if not start < first < last:
            raise ValueError(
                f"row {row} holds tokens in columns {start} to {stop - 1}; attention was asked for"
                f" the tokens from column {first} on, which need one token before them"
            )
        looks.append(
            Look(
                row=row,
                queries=torch.arange(first - 1, last - 1, device=input_ids.device),
                keys=(slice(start, stop),),
                visible=first - start,
                frames=frame_averages(frames[row, start:stop], max(frames_per_row)),
            )
        )
    use_our_attention(model)
    recorder = FrameRecorder(
        looks,
        num_layers=config.text_config.num_hidden_layers,
        last=num_layers,
        query_chunk=query_chunk,
    )
    with observing(recorder):
        yield FrameAttention(recorder, len(looks), num_tokens, max(frames_per_row))


def _real_columns(mask: Tensor, row: int) -> tuple[int, int]:
    columns = mask.nonzero()[:, 0]
    start, stop = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    if stop - start != len(columns):
        raise ValueError(f"row {row} has padding between its tokens; pad before and behind only")
    return start, stop
