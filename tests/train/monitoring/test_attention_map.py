"""The map of a rollout's attention: its cells are the shares of each token's frame attention."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.questions import MediaRef, ProblemType, VideoQuestion
from train.monitoring.attention_map import attention_map, frame_shares
from train.rollouts.segments import PERCEPTION, REASONING
from train.rollouts.types import GroupRewards, Rollout, RolloutGroup, ScoredGroup


def scored(attention: torch.Tensor | None, segments: list[int]) -> ScoredGroup:
    """A group of one rollout with these segments."""
    rollout = Rollout(
        token_ids=torch.arange(len(segments)),
        text="",
        is_truncated=False,
        segment_ids=torch.tensor(segments),
        token_counts={},
    )
    question = VideoQuestion(
        problem="?",
        solution="1",
        media=(MediaRef(kind="video", path="a.mp4"),),
        problem_type=ProblemType.NUMERICAL,
    )
    rewards = GroupRewards(reasoning=(), perception=None, verdicts=(None,))
    group = RolloutGroup(question, {}, (rollout,))
    return ScoredGroup(group, rewards, torch.zeros(1, len(segments)), None, attention, None)


def test_a_cell_is_the_share_of_the_tokens_attention() -> None:
    # Three tokens over two frames, and a fourth place that is padding.
    attention = torch.tensor([[[3.0, 1.0], [0.0, 0.0], [0.5, 0.5], [9.0, 9.0]]])
    found = attention_map(scored(attention, [PERCEPTION, 0, REASONING]), 0)
    assert found is not None
    assert (found.width, found.height, found.scale) == (15, 42, "0% … 75%")
    data = base64.b64decode(found.source.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert pixels.shape == (3, 3, 4)
    # shares 0.75, 0, 0.5 and 0.25, 0, 0.5 of the strongest, 0.75
    assert pixels[0, :, 3].tolist() == [230, 0, 153]
    assert pixels[1, :, 3].tolist() == [77, 0, 153]
    assert pixels[2, :, 3].tolist() == [255, 0, 255]
    assert pixels[2, 0].tolist() != pixels[2, 2].tolist()


def test_the_palest_cell_is_the_maps_least() -> None:
    found = attention_map(scored(torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]), [REASONING] * 2), 0)
    assert found is not None
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.source.partition(",")[2]))))
    assert pixels[:2, :, 3].tolist() == [[230, 115], [0, 115]]
    assert found.scale == "40% … 60%"


def test_there_is_no_map_without_attention_or_tokens() -> None:
    assert attention_map(scored(None, [PERCEPTION]), 0) is None
    assert attention_map(scored(torch.zeros(1, 4, 2), []), 0) is None


def test_shares_add_up_to_one_for_each_token_that_looks_at_frames() -> None:
    attention = np.random.default_rng(0).random((20, 5)).astype(np.float32)
    attention[7] = 0
    sums = frame_shares(attention).sum(axis=1)
    assert sums[7] == 0
    assert np.delete(sums, 7) == pytest.approx(np.ones(19), abs=1e-6)
