"""How much each generated token attends to each frame of the video, measured beside SDPA.

APPO (arXiv:2602.23823) needs, for token n of a completion and frame t,

    F_nt = mean over layers, heads and the frame's vision tokens v of A[query that predicts n, v]

with A the softmax weights over all keys that the query sees: attention mass per vision token, not
normalised again over frames. Layers that do not attend (Qwen3.5's gated delta nets) are passed
over. The published code keeps every layer's weights while it samples with
eager attention. Here they are computed from the queries and keys of the last layers in a
teacher-forced forward: for completion rows only, one chunk of rows at a time, in float32.

A frame is a temporal cell of the video tower (Qwen models merge two sampled frames). Image tokens
have another id and never count.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.modeling.attention import observing, use_our_attention
from train.modeling.families import attention_layers, family_of
from train.modeling.numerics import DEFAULT_QUERY_CHUNK, attention_mass

DEFAULT_LAYERS = 3


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
class FrameQueries:
    """R queries in one row of a forward, the keys that they see, and the frames of those keys.

    `queries` [R] are columns; `keys` are column ranges, in reading order; the first query sees
    the first `visible` keys, each later one sees one key more. `frames` [K', number of frames]
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
        parts: Sequence[FrameQueries],
        *,
        layers: Sequence[int],
        last: int = DEFAULT_LAYERS,
        query_chunk: int = DEFAULT_QUERY_CHUNK,
    ) -> None:
        """`layers` are the numbers of those that attend; the `last` of them are observed."""
        if not 1 <= last <= len(layers):
            raise ValueError(
                f"attention can be taken from the last 1 to {len(layers)} layers that attend, not"
                f" {last}"
            )
        self._parts = parts
        self._layers = list(layers)[-last:]
        self._seen: set[int] = set()
        self._query_chunk = query_chunk
        self._sums: list[Tensor] = []

    def observe(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Add one layer's attention, if it is one of the last ones."""
        if layer not in self._layers:
            return
        if layer in self._seen:
            raise RuntimeError(
                "frame attention is recorded for one forward, but a second one (or the backward"
                " pass with gradient checkpointing) ran before the block ended"
            )
        shares = [self._share(part, query, key, scaling) for part in self._parts]
        if self._seen:
            shares = [before + share for before, share in zip(self._sums, shares, strict=True)]
        self._sums = shares
        self._seen.add(layer)

    def _share(self, part: FrameQueries, query: Tensor, key: Tensor, scaling: float) -> Tensor:
        longest = max([int(part.queries.max()) + 1, *(columns.stop for columns in part.keys)])
        if longest > key.shape[2] or query.shape[2] != key.shape[2]:
            raise RuntimeError(
                "frame attention needs a forward over whole sequences (no key-value cache):"
                f" {longest} columns were expected, {query.shape[2]} queries and {key.shape[2]}"
                " keys came"
            )
        queries = query[part.row].index_select(1, part.queries)
        keys = torch.cat([key[part.row, :, columns] for columns in part.keys], dim=1)
        return attention_mass(
            queries, keys, part.visible, part.frames, scaling, query_chunk=self._query_chunk
        )

    def attention(self) -> list[Tensor]:
        """[R, F] of each part, the mean over layers."""
        if len(self._seen) != len(self._layers):
            raise RuntimeError(
                f"of layers {self._layers} only {sorted(self._seen)} ran: call the model"
                " inside the block before reading its frame attention"
            )
        return [total / len(self._layers) for total in self._sums]


class FrameAttention:
    """The result of a `capture_frame_attention` block."""

    def __init__(self, recorder: FrameRecorder, rows: int, tokens: int, frames: int) -> None:
        self._recorder = recorder
        self._shape = (rows, tokens, frames)

    def result(self) -> Tensor:
        """float32 [B, N, F]; 0 at tokens behind a row's end and at frames that a row lacks."""
        rows = self._recorder.attention()
        result = rows[0].new_zeros(self._shape)
        for row, attention in enumerate(rows):
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

    The tokens of interest are in columns `first_token` (one for all rows, or a tensor [B]) to
    `first_token + num_tokens - 1`; row n of the result belongs to the position before, which
    predicts token n. Rows may be padded on both sides. `model` is the transformers model without
    wrappers; from then on its text layers attend through `train.modeling.attention`, which equals
    SDPA. Taken from the last `num_layers` layers that attend; [B, N, 0] for batches without a
    video.
    """
    tokens = family_of(model.config).vision_tokens(model.config)
    frames, frames_per_row = frame_columns(
        input_ids,
        video_grid_thw,
        video_token_id=tokens.video_id,
        merge_size=tokens.merge_size,
    )
    firsts = torch.as_tensor(first_token, device=input_ids.device).expand(len(input_ids)).tolist()
    parts = []
    for row, first in enumerate(firsts):
        start, stop = _real_columns(attention_mask[row], row)
        last = min(first + num_tokens, stop)
        if not start < first < last:
            raise ValueError(
                f"row {row} holds tokens in columns {start} to {stop - 1}; attention was asked for"
                f" the tokens from column {first} on, which need one token before them"
            )
        parts.append(
            FrameQueries(
                row=row,
                queries=torch.arange(first - 1, last - 1, device=input_ids.device),
                keys=(slice(start, stop),),
                visible=first - start,
                frames=frame_averages(frames[row, start:stop], max(frames_per_row)),
            )
        )
    use_our_attention(model)
    recorder = FrameRecorder(
        parts,
        layers=attention_layers(model.config),
        last=num_layers,
        query_chunk=query_chunk,
    )
    with observing(recorder):
        yield FrameAttention(recorder, len(parts), num_tokens, max(frames_per_row))


def _real_columns(mask: Tensor, row: int) -> tuple[int, int]:
    columns = mask.nonzero()[:, 0]
    start, stop = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    if stop - start != len(columns):
        raise ValueError(f"row {row} has padding between its tokens; pad before and behind only")
    return start, stop
