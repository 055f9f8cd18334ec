"""A rollout's attention map: one column for each token, one row for each frame, as a small picture.

After figure A of APPO's supplement (arXiv:2602.23823). A cell's colour is the share of the token's
frame attention that the frame gets, from the map's least to its most; the last row shows the
segments. The step computed the attention for its weights anyway: the map costs no pass.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cli.html_page import data_uri
from media.encoding import pixels_png
from train.monitoring.rollout_records import ROLE_OF_SEGMENT
from train.rollouts.types import ScoredGroup

_TOKEN_WIDTH, _ROW_HEIGHT = 5, 14  # pixels on the page
_HEAT = (220, 38, 38)
_COLOUR_OF_ROLE = {"perception": (15, 148, 136), "reasoning": (139, 92, 246)}
_STRONGEST = 230  # of 255: how opaque the largest share of a map is


@dataclass(frozen=True)
class AttentionMap:
    """A map as the template prints it; `scale` has the shares of its palest and strongest cell."""

    source: str
    width: int
    height: int
    scale: str


def attention_map(scored: ScoredGroup, place: int) -> AttentionMap | None:
    """The map of rollout `place`; None where the step has no frame attention."""
    if scored.frame_attention is None:
        return None
    rollout = scored.group.rollouts[place]
    count = len(rollout.token_ids)
    attention = scored.frame_attention[place, :count].float().numpy()
    if not attention.size:
        return None
    shares = frame_shares(attention)
    least, most = float(shares.min()), float(shares.max())
    pixels = np.zeros((shares.shape[1] + 1, count, 4), dtype=np.uint8)
    pixels[:-1, :, :3] = _HEAT
    pixels[:-1, :, 3] = np.round(_STRONGEST * (shares.T - least) / max(most - least, 1e-12))
    for number, segment in enumerate(rollout.segment_ids.tolist()):
        role = ROLE_OF_SEGMENT.get(segment)
        if role is not None:
            pixels[-1, number] = (*_COLOUR_OF_ROLE[role], 255)
    return AttentionMap(
        source=data_uri(pixels_png(pixels), "image/png"),
        width=_TOKEN_WIDTH * count,
        height=_ROW_HEIGHT * (shares.shape[1] + 1),
        scale=f"{least:.0%} … {most:.0%}",
    )


def frame_shares(attention: NDArray[np.float32]) -> NDArray[np.float32]:
    """Attention [tokens, frames] as shares of each token's own; 0 for a token without any."""
    total = attention.sum(axis=1, keepdims=True)
    shares = np.zeros_like(attention)
    np.divide(attention, total, out=shares, where=total > 0)
    return shares
