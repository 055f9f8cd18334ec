"""Samples the next token from its scores, by transformers' own rules in their order.

Repetition penalty, temperature, top-k, top-p, min-p, then one random number. It lies in [0, 1),
depends only on the group's seed, the row's place in the group and the token's index (`row_draws`),
and picks the token whose interval of the cumulative distribution, in vocabulary order, holds it. So
neither neighbours in the batch nor rows that ended earlier change what a row samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from schemas.questions import VideoQuestion
from train.modeling.numerics import NotFiniteError, at_least_float32


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled; the defaults are the model's own distribution.

    Raises ValueError for values without a meaning.
    """

    max_new_tokens: int
    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Above 1, tokens of the prompt and of the completion so far become less likely."""

    def __post_init__(self) -> None:
        """Refuse values that define no distribution."""
        for name, is_valid, expected in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 or above"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (all tokens) or above"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
        ):
            if not is_valid:
                raise ValueError(f"{name} must be {expected}, got {getattr(self, name)}")


def group_seed(
    seed: int, step: int, question: VideoQuestion, *, instead_of: int | None = None
) -> int:
    """The seed of a question's group in a step: the same in every process and batch.

    `instead_of` is the row that the question stands in for: its own group may be in the same step.
    """
    name = f"{seed}/{step}/{question.question_id}/{question.row}"
    if instead_of is not None:
        name += f"/{instead_of}"
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big")


def row_draws(seeds: Sequence[int], group_size: int, num_tokens: int) -> Tensor:
    """Numbers in [0, 1), float64 [groups * group_size, num_tokens], rows of a group together."""
    draws = [
        np.random.default_rng((seed, row)).random(num_tokens)
        for seed in seeds
        for row in range(group_size)
    ]
    return torch.from_numpy(np.stack(draws))


def next_tokens(
    logits: Tensor, sampling: Sampling, *, draws: Tensor | None, seen: Tensor | None
) -> Tensor:
    """One token for each row: [R, V] -> long [R], see `next_tokens_with_logprobs`."""
    return next_tokens_with_logprobs(logits, sampling, draws=draws, seen=seen)[0]


def next_tokens_with_logprobs(
    logits: Tensor, sampling: Sampling, *, draws: Tensor | None, seen: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """One token for each row, [R, V] -> long [R], and its log-prob, float32 [R].

    The log-prob is that of the distribution which the token was sampled from, after temperature and
    restrictions; None where nothing is sampled, at temperature 0. `draws` float64 [R], needed
    unless the temperature is 0; `seen` bool [R, V], the tokens that the repetition penalty meets,
    needed where there is one.
    """
    scores = at_least_float32(logits)
    if seen is not None:
        penalised = torch.where(
            scores < 0, scores * sampling.repetition_penalty, scores / sampling.repetition_penalty
        )
        scores = torch.where(seen, penalised, scores)
    if draws is None:
        return scores.argmax(dim=-1), None
    shares = restricted(scores / sampling.temperature, sampling).softmax(dim=-1)
    # In float64: over a large vocabulary a float32 sum would shift the borders between tokens.
    borders = shares.double().cumsum(dim=-1)
    total = borders[:, -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))
    places = torch.minimum(draws[:, None] * total, below_total)
    # NaN is on no side of any border: a token that exists, until somebody looks (`are_finite`).
    tokens = torch.searchsorted(borders, places, right=True).clamp(max=scores.shape[-1] - 1)
    return tokens[:, 0], shares.gather(-1, tokens).log()[:, 0]


def are_finite(logits: Tensor) -> Tensor:
    """Whether a token can be chosen in each row of [R, V]: bool, one number on their device."""
    return logits.amax(dim=-1).isfinite().all()


def refuse_not_finite(is_finite: Tensor | bool) -> None:
    """Raise NotFiniteError where scores were not; on a GPU this waits for them."""
    if not bool(is_finite):
        raise NotFiniteError(
            "the model's scores of the next token are not finite (NaN or infinite): its weights"
            " are spoiled, or its number format is too narrow for them"
        )


class ScoresOfGenerate:
    """A logits processor of transformers that changes no score: it refuses what is not finite, and
    knows the log-probs of the tokens that are sampled from them, as `next_tokens_with_logprobs`.

    `generate` calls it between repetition penalty and temperature.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._last: Tensor | None = None
        self._logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores [R, V] as they are. Raises NotFiniteError."""
        refuse_not_finite(are_finite(scores))
        self._take(input_ids[:, -1])
        if self._sampling.temperature:
            wide = at_least_float32(scores) / self._sampling.temperature
            self._last = restricted(wide, self._sampling).log_softmax(dim=-1)
        return scores

    def logprobs(self, last: Tensor) -> Tensor | None:
        """[R, steps], with the last tokens [R] that were sampled; None at temperature 0."""
        self._take(last)
        return torch.stack(self._logprobs, dim=1) if self._logprobs else None

    def _take(self, tokens: Tensor) -> None:
        if self._last is not None:
            self._logprobs.append(self._last.gather(-1, tokens[:, None])[:, 0])


def restricted(scores: Tensor, sampling: Sampling) -> Tensor:
    """Scores [R, V] after the temperature; minus infinity at tokens that must not be sampled."""
    if 0 < sampling.top_k < scores.shape[-1]:
        last = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < last, -torch.inf)
    if sampling.top_p < 1:
        ascending, order = scores.sort(dim=-1)
        is_out = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - sampling.top_p
        is_out[:, -1] = False
        scores = scores.masked_fill(is_out.scatter(-1, order, is_out), -torch.inf)
    if sampling.min_p > 0:
        shares = scores.softmax(dim=-1)
        scores = scores.masked_fill(
            shares < sampling.min_p * shares.amax(dim=-1, keepdim=True), -torch.inf
        )
    return scores
