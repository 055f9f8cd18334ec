"""Advantages as plain loops over Python floats, written from the papers' formulas.

DeepSeekMath (arXiv:2402.03300) section 4.1.2, VideoP2R (arXiv:2511.11113) equations 1, 6 and 7,
with the sample standard deviation, eps beside it, and NaN for a missing reward.
"""

import math


def naive_group_advantages(
    rewards: list[float], group_size: int, scale: bool, eps: float
) -> list[float]:
    advantages = []
    for first in range(0, len(rewards), group_size):
        group = rewards[first : first + group_size]
        present = [reward for reward in group if not math.isnan(reward)]
        for reward in group:
            if math.isnan(reward) or all(other == present[0] for other in present):
                advantages.append(0.0)
                continue
            mean = sum(present) / len(present)
            advantage = reward - mean
            if scale:
                squares = sum((other - mean) ** 2 for other in present)
                advantage /= math.sqrt(squares / (len(present) - 1)) + eps
            advantages.append(advantage)
    return advantages


def naive_segment_advantages(
    perception: list[float],
    reasoning: list[float],
    segment_ids: list[list[int]],
    group_size: int,
    scale: bool,
    eps: float,
) -> list[list[float]]:
    of_segment = {
        1: naive_group_advantages(perception, group_size, scale, eps),
        2: naive_group_advantages(reasoning, group_size, scale, eps),
    }
    return [
        [of_segment[segment][rollout] if segment else 0.0 for segment in row]
        for rollout, row in enumerate(segment_ids)
    ]
