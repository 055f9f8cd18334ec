"""Check of a rollout engine: the first completions are as probable to the learner as to it.

The weights are the same then, so what lies between is another video, other positions, a template,
or weights that did not arrive. It costs nothing: the first policy pass has the learner's numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from train.algorithms.importance_ratio import gap_of_rollouts
from train.rollouts.token_sampling import Sampling
from train.rollouts.types import ScoredGroup
from train.trainers.distributed import gather_rows
from train.trainers.parity_check import ParityError


@dataclass(frozen=True)
class SamplerTolerance:
    """What may lie between two log-probs of a token, in nats."""

    largest: float
    mean: float
    is_restricted: bool = False
    """The sampler leaves out improbable tokens, so the others are more probable to it."""


def sampler_tolerance(dtype: torch.dtype, sampling: Sampling) -> SamplerTolerance | None:
    """For passes in `dtype`; None where the sampler penalises tokens, which no learner does.

    In float32 programs differ by some 1e-5; in bfloat16 by some 0.05 on average, and single
    improbable tokens by much more.
    """
    if sampling.repetition_penalty != 1:
        return None
    is_restricted = sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0
    if dtype == torch.float32:
        return SamplerTolerance(1e-3, 1e-3, is_restricted)
    return SamplerTolerance(float("inf"), 0.15, is_restricted)


def refuse_other_sampler(scored: Sequence[ScoredGroup], tolerance: SamplerTolerance) -> None:
    """Raise ParityError, in all processes, where more lies between than the tolerance allows."""
    differences = [own for each in scored for own, _ in gap_of_rollouts(each)]
    tokens = torch.cat([torch.zeros(0), *(each.float().cpu() for each in differences)])
    apart = tokens.clamp(min=0) if tolerance.is_restricted else tokens.abs()
    row = [float(len(apart)), float(apart.sum()), float(apart.max()) if len(apart) else 0.0]
    rows = gather_rows(row)
    count, total = (sum(each[place] for each in rows) for place in (0, 1))
    largest = max(each[2] for each in rows)
    mean = total / max(count, 1)
    if not (largest <= tolerance.largest and mean <= tolerance.mean):
        raise ParityError(
            f"the first completions of the rollout server have log-probs that differ from the"
            f" learner's by {mean:.4f} on average and {largest:.4f} at most ({tolerance.mean:g} and"
            f" {tolerance.largest:g} are allowed): the server does not see the same video,"
            " positions or weights; serve the very folder that --model names, with"
            " --logprobs-mode processed_logprobs"
        )
