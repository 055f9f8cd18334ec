"""`train.algorithms.appo` under the name that code outside of this project imports."""

from train.algorithms.appo import (
    AppoConfig,
    Strategy,
    frame_scores,
    select_frames,
    token_weights,
    token_weights_from_hidden,
)

__all__ = [
    "AppoConfig",
    "Strategy",
    "frame_scores",
    "select_frames",
    "token_weights",
    "token_weights_from_hidden",
]
