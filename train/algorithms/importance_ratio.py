"""The importance ratio between learner and sampler, truncated, per token.

Completions are sampled by one program and learned from by another, or with the weights of a step
before. The policy gradient stays that of the learner where each token counts by

    rho_t = min(cap, pi_learner(t) / pi_sampler(t))

(truncated importance sampling, Ionides 2008; for rollout engines: Yao et al. 2025, "Your Efficient
RL Framework Secretly Brings You Off-Policy RL Training"). It is never negative and carries no
gradient, so it commutes with PPO's minimum and clipping and can stand in the advantages [B, T]; the
KL term takes no advantages and is not touched. The learner's log-probs are those of its weights
before the generation's first update: PPO's own ratio begins there.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from train.rollouts.types import SamplerGap, ScoredGroup


def truncated_ratios(differences: Tensor, cap: float) -> Tensor:
    """min(cap, exp(difference)), of any shape."""
    return differences.exp().clamp(max=cap)


def with_sampler_gap(scored: ScoredGroup, learner: Tensor, cap: float | None) -> ScoredGroup:
    """The group with what lies between `learner`, its log-probs [G, N], and the sampler's.

    As it is where the sampler gave no log-probs. `cap` None measures only.
    """
    sampled = [rollout.logprobs for rollout in scored.group.rollouts]
    if any(each is None for each in sampled):
        return scored
    rows = [each for each in sampled if each is not None]
    columns = pad_sequence(rows, batch_first=True).to(learner)
    is_token = pad_sequence([torch.ones_like(each) for each in rows], batch_first=True)
    differences = (learner.detach() - columns) * is_token.to(learner)
    ratios = None if cap is None else truncated_ratios(differences, cap)
    return replace(scored, sampler_gap=SamplerGap(differences, ratios))


def update_factors(scored: ScoredGroup) -> Tensor:
    """What the policy term of each token is multiplied with, float [G, N].

    The advantages, times the factors of a token weighting, times the ratios.
    """
    factors = scored.advantages
    if scored.weights is not None:
        factors = factors * scored.weights
    if scored.sampler_gap is not None and scored.sampler_gap.ratios is not None:
        factors = factors * scored.sampler_gap.ratios.to(factors)
    return factors


def gap_of_rollouts(scored: ScoredGroup) -> Sequence[tuple[Tensor, Tensor | None]]:
    """Differences [C] and ratios [C] of each rollout's own tokens; nothing without a gap."""
    gap = scored.sampler_gap
    if gap is None:
        return []
    lengths = [len(rollout.token_ids) for rollout in scored.group.rollouts]
    return [
        (gap.differences[row, :length], None if gap.ratios is None else gap.ratios[row, :length])
        for row, length in enumerate(lengths)
    ]
