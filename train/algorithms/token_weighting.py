"""Token weightings: factors on the policy loss of each token, `--algo BASE+NAME`.

A weighting is one class, in a file of its own, and one call of
`train.algorithms.registry.register_token_weighting`:

    class MineOptions(Config):
        mine_strength: float = 1.0
        '''How much more the last token learns.'''

    class Mine(TokenWeighting):
        name = "mine"
        options = MineOptions

        def __init__(self, config): self.strength = config.mine_strength
        def weights(self, given): ...

Its options are then options of `train.rl`, and every algorithm is there as `BASE+mine`. The module
must be light: import torch inside of `weights` and `metrics`.
"""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from cli.config import Config
from schemas.traces import TraceTemplate

if TYPE_CHECKING:  # options are read without torch
    from torch import Tensor

    from train.algorithms.appo import AppoConfig
    from train.modeling.packed_forward import GroupLogprobs
    from train.rollouts.types import GroupRewards, RolloutGroup, ScoredGroup

PassOutput = Literal["frame_attention"]
MetricKind = Literal["mean", "std", "sum", "min", "max"]

# What a mistake in a function of the user's own raises; anything else keeps its trace.
_MISTAKES = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


class AlgorithmError(ValueError):
    """An advantage function or a token weighting failed, so training cannot go on. One sentence."""


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Raise AlgorithmError, which names `what` and the line, for a mistake made inside."""
    try:
        yield
    except AlgorithmError:
        raise
    except _MISTAKES as error:
        # this function, the one that calls the mistaken one, and then the mistaken one itself
        frames = traceback.extract_tb(error.__traceback__)
        own = frames[min(2, len(frames) - 1)].filename
        last = next(frame for frame in reversed(frames) if frame.filename == own)
        place = f"{Path(last.filename).name}, line {last.lineno}"
        reason = " ".join(str(error).split())
        raise AlgorithmError(f"{what} raised {type(error).__name__} ({place}): {reason}") from error


@dataclass(frozen=True)
class WeightingInputs:
    """A group as its weighting sees it: G rollouts, N tokens of the longest one, F frames."""

    group: "RolloutGroup"
    rewards: "GroupRewards"
    logprobs: "GroupLogprobs"
    """The policy's own pass over the group: log-probs, entropies, log-normalisers [G, N], hidden
    states [G, N, H], and frame attention [G, N, F] for weightings that need it."""
    segment_ids: "Tensor"
    """long [G, N]: 1 perception, 2 reasoning, 0 behind a completion's end."""
    lm_head: Any
    """The policy's output embedding: `weight` [V, H], `bias` [V] or None."""
    temperature: float


@dataclass(frozen=True)
class TokenWeights:
    """What a weighting makes of a group."""

    weights: "Tensor"
    """float [G, N]; 1 leaves a token as it is. They multiply the policy term only."""
    crucial_frames: "Tensor | None" = None
    """bool [F], the frames that were singled out, for pages and records."""


class TokenWeighting(Protocol):
    """Factors on the policy loss. Subclass it; `train.algorithms.appo_weighting` is an example."""

    name: ClassVar[str]
    """What stands behind the `+`."""
    options: ClassVar[type[Config]]
    """Its options; each begins with the name and an underscore."""
    needs: ClassVar[frozenset[PassOutput]] = frozenset()
    """What the policy pass must give beyond what it always gives. With `frame_attention`, questions
    without a video have no weights, and a file without any video is refused."""
    metric_kinds: ClassVar[Mapping[str, MetricKind]] = {}
    """Each key of `metrics` (`NAME/...`), and how its values are combined."""

    def __init__(self, config: Any) -> None:
        """From a command's options, which hold those of `options`."""

    def check(self, template: TraceTemplate, *, rewards_perception: bool) -> None:
        """Raise ValueError, in one sentence, for options that fit neither template nor rewards."""

    def weights(self, given: WeightingInputs) -> TokenWeights:
        """The factors of a group."""
        ...

    def metrics(
        self, scored: "ScoredGroup", frame_times: Sequence[float] | None
    ) -> Mapping[str, Sequence[float]]:
        """Values of a group by key; `frame_times` are seconds [F] for weightings with frames."""
        return {}

    @property
    def page_config(self) -> "AppoConfig":
        """By which numbers pages and records show groups: `score_tokens`, `reward_threshold`, and
        the `max_weight` of their colours."""
        from train.algorithms.appo import AppoConfig

        return AppoConfig()

    def warning(self, groups: "Sequence[ScoredGroup]") -> str | None:
        """A sentence for the log about a step, once in a run; None where there is none."""
        return None
