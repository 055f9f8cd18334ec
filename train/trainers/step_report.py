"""What a trainer reports of each optimizer step, to whoever observes it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from train.rewards.judge_health import JudgeUse
from train.rollouts.types import SamplerGap, ScoredGroup


@dataclass(frozen=True)
class StepReport:
    """One optimizer step in this process: what it learned from."""

    step: int
    """Counted from 1."""
    groups: Sequence[ScoredGroup]
    judge: JudgeUse | None
    """The judge's part; None where no new completions were rewarded."""
    seconds: Mapping[str, float]
    """Time spent on `sampling` and on `scoring`: passes without gradient, of old and reference
    log-probs and ahead of a group's parts; 0 where there were none."""
    gather: Callable[[list[float]], list[list[float]]]
    """The rows of all processes for this process's row."""


class Observer(Protocol):
    """Called in every process once per optimizer step."""

    def __call__(self, report: StepReport, /) -> Mapping[str, float]:
        """Numbers to log with the step."""


def on_cpu(scored: ScoredGroup) -> ScoredGroup:
    """A group as a report holds it: on the CPU, without its prompt's pixels."""
    tensors = {
        name: value.detach().cpu()
        for name in ("advantages", "weights", "frame_attention", "crucial_frames")
        if (value := getattr(scored, name)) is not None
    }
    gap = scored.sampler_gap
    if gap is not None:
        ratios = None if gap.ratios is None else gap.ratios.cpu()
        gap = SamplerGap(gap.differences.cpu(), ratios)
    return replace(scored, group=replace(scored.group, prompt={}), sampler_gap=gap, **tensors)
