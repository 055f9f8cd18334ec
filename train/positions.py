"""Rotary positions of Qwen2.5-VL prompts, as its released weights were trained with them.

The temporal cells of a video stand `tokens_per_second` positions per second apart, and what
follows a video starts after its largest position. transformers 5.17 computes other ones: it cuts
the seconds of a cell to whole ones, so that all cells of a clip with more than two frames per
second share one position, and lets the text that follows overlap with a long clip, while the tokens
that it generates start after it. Given positions avoid all three.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

_TEXT, _VIDEO = 0, 2
# Times come from floating-point sums: what is this little below a whole position is that position.
_ROUNDING = 1e-6


def qwen2_5_positions(
    mm_token_type_ids: Tensor,
    *,
    image_grid_thw: Tensor | None,
    video_grid_thw: Tensor | None,
    seconds_per_cell: Sequence[float],
    tokens_per_second: int,
    merge_size: int,
) -> Tensor:
    """Positions of one prompt: kinds of its tokens [P] (0 text, 1 image, 2 video) -> long [3, P].

    Rows are time, height, width. The c-th cell of a video is at floor(c * seconds * tokens per
    second) (arXiv:2502.13923, section 2.1.3), but at least one after the cell before it: cells that
    are closer than a position would otherwise not be told apart.
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
                step = next(seconds) * tokens_per_second if kind == _VIDEO else 1.0
                part = _grid(cells, height // merge_size, width // merge_size, step)
            parts.append(part + start)
            start += int(part.max()) + 1
            length -= part.shape[1]
    return torch.cat(parts, dim=1)


def _grid(cells: int, height: int, width: int, step: float) -> Tensor:
    times: list[int] = []
    for cell in range(cells):
        place = int(cell * step + _ROUNDING)
        times.append(max(place, times[-1] + 1) if times else place)
    axes = (torch.tensor(times), torch.arange(height), torch.arange(width))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)


def _rows(grids: Tensor | None) -> Iterator[tuple[int, int, int]]:
    yield from [] if grids is None else grids.tolist()
