"""Rotary positions of Qwen2.5-VL prompts, as its released code and vLLM compute them.

`released` (the default): the temporal cells of a video are `tokens_per_second` positions per second
apart, rounded down, so cells closer than that share a position; the text behind a video starts
after its largest position. That is what the weights were released with, and what vLLM 0.31 serves;
the seconds are float32 and their product with the cell's number float64, as there, so both round
down at the same place. transformers 5.17 differs in three ways: it truncates the seconds of a cell
to an integer before it multiplies; text behind a long clip overlaps with it; and generated tokens
do not continue where that text ended. Positions that are passed to the model avoid all three.

`apart` lets no two cells share a position: each is at least one after the cell before it. Clips of
more than `tokens_per_second` cells per second (above 4 frames per second) get positions then that
no release was trained with, and a vLLM server needs our plugin's `P2R_ROPE_POSITIONS=apart`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TEXT, _VIDEO = 0, 2
# What every released Qwen2.5-VL has in its config.json.
_RELEASED_TOKENS_PER_SECOND = 2


def qwen2_5_time_inputs(
    prompt: Mapping[str, Tensor],
    seconds_per_cell: Sequence[float],
    merge_size: int,
    config: Any,
    *,
    apart: bool = False,
) -> dict[str, Tensor]:
    """`position_ids` long [3, 1, P] of a prompt and, with videos, `second_per_grid_ts` [videos].

    `config` is the model's configuration; None stands for that of the released models.
    """
    inputs = {"second_per_grid_ts": torch.tensor(seconds_per_cell)} if seconds_per_cell else {}
    tokens_per_second = _RELEASED_TOKENS_PER_SECOND
    if config is not None:
        tokens_per_second = int(config.vision_config.tokens_per_second)
    positions = qwen2_5_positions(
        prompt["mm_token_type_ids"][0],
        image_grid_thw=prompt.get("image_grid_thw"),
        video_grid_thw=prompt.get("video_grid_thw"),
        seconds_per_cell=seconds_per_cell,
        tokens_per_second=tokens_per_second,
        merge_size=merge_size,
        apart=apart,
    )
    return inputs | {"position_ids": positions[:, None]}


def qwen2_5_positions(
    mm_token_type_ids: Tensor,
    *,
    image_grid_thw: Tensor | None,
    video_grid_thw: Tensor | None,
    seconds_per_cell: Sequence[float],
    tokens_per_second: int,
    merge_size: int,
    apart: bool = False,
) -> Tensor:
    """Positions of one prompt: kinds of its tokens [P] (0 text, 1 image, 2 video) -> long [3, P].

    Rows are time, height, width. The c-th cell of a video is at floor(c * seconds * tokens per
    second) (arXiv:2502.13923, section 2.1.3), with `apart` at least one after the cell before it.
    """
    grids = {1: _rows(image_grid_thw), 2: _rows(video_grid_thw)}
    seconds = iter(seconds_per_cell)
    parts, start = [], 0
    for kind, run in groupby(mm_token_type_ids.tolist()):
        length = sum(1 for _ in run)
        while length > 0:
            if kind == _TEXT:
                part = torch.arange(length).expand(3, -1)
            else:
                cells, height, width = next(grids[kind])
                step = (
                    float(np.float32(next(seconds))) * tokens_per_second if kind == _VIDEO else 1.0
                )
                part = _grid(cells, height // merge_size, width // merge_size, step, apart)
            parts.append(part + start)
            start += int(part.max()) + 1
            length -= part.shape[1]
    return torch.cat(parts, dim=1)


def _grid(cells: int, height: int, width: int, step: float, apart: bool) -> Tensor:
    times: list[int] = []
    for cell in range(cells):
        place = int(cell * step)
        times.append(max(place, times[-1] + 1) if apart and times else place)
    axes = (torch.tensor(times), torch.arange(height), torch.arange(width))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)


def _rows(grids: Tensor | None) -> Iterator[tuple[int, int, int]]:
    yield from [] if grids is None else grids.tolist()
