"""The settings of the recipe fit its traces: attention decides which tokens learn harder."""

import random
from typing import Any

import pytest
import torch

from sandbox.lessons import recipe
from sandbox.models.learner_tokenizer import learner_tokenizer
from sandbox.teacher.traces import write_trace
from sandbox.world.balanced_draw import draw_question
from sandbox.world.clips import TINY
from train.algorithms.appo import AppoConfig, token_weights

pytestmark = pytest.mark.heavy

APPO = AppoConfig(
    score_tokens=recipe.SCORE_TOKENS,
    frames_per_rollout=recipe.FRAMES_PER_ROLLOUT,
    tokens_per_frame=recipe.TOKENS_PER_FRAME,
)


@pytest.fixture(scope="module")
def lengths() -> list[int]:
    """Tokens of traces, end token included."""
    tokenizer: Any = learner_tokenizer()
    rng = random.Random(5)
    drawn = [draw_question(TINY, rng) for _ in range(300)]
    texts = [write_trace("p2r", one.query, one.facts, one.value, TINY) for one in drawn]
    return sorted(len(ids) + 1 for ids in tokenizer(texts)["input_ids"])


def test_a_frame_is_followed_by_a_quarter_of_a_trace_at_most(lengths: list[int]) -> None:
    assert lengths[len(lengths) // 2] >= 4 * recipe.TOKENS_PER_FRAME
    assert lengths[-1] <= recipe.MAX_NEW_TOKENS


def test_other_attention_gives_other_weights(lengths: list[int]) -> None:
    """The same rollouts, each one's attention dealt to other tokens: the choice of frames stays,
    that of tokens changes, and with it the weights."""
    generator = torch.Generator().manual_seed(0)
    rollouts, tokens = 8, lengths[len(lengths) // 2]
    attention = torch.rand(rollouts, tokens, TINY.cells, generator=generator) / TINY.cells
    logprobs = torch.randn(rollouts, tokens, 64, generator=generator).log_softmax(-1)
    mask = torch.ones(rollouts, tokens, dtype=torch.bool)
    right = torch.tensor([1.0, 0.0] * (rollouts // 2))
    weights = token_weights(attention, logprobs, mask, right, APPO)
    order = torch.randperm(tokens, generator=generator)
    permuted = token_weights(attention[:, order], logprobs, mask, right, APPO)
    weighted = weights > 1
    assert 0.1 < weighted.float().mean() < 0.9  # some tokens weigh more, not all
    assert (weighted != (permuted > 1)).float().mean() > 0.1
    # With as many tokens as a rollout has, attention has no say.
    config = AppoConfig(
        score_tokens=APPO.score_tokens, frames_per_rollout=1, tokens_per_frame=tokens
    )
    one, other = (
        token_weights(given, logprobs, mask, right, config)
        for given in (attention, attention[:, order])
    )
    assert one.equal(other)
