"""Options of rewards and of the judge behind them: groups of the options of `train.rl`."""

from pydantic import Field

from cli.config import Config
from cli.option_groups import BackendOptions, JudgeReplyOptions

JUDGE_PROMPTS = ("sufficiency", "sufficiency-short")
"""Prompts of one call. Others of judges/prompts/ take two, which training does not make."""


class RewardOptions(Config, renamed={"published_rewards": "reward"}, group="training"):
    """What a rollout is rewarded for. The numbers are those of
    `train.rewards.segment_rewards.RewardConfig`."""

    reward: tuple[str, ...] = ()
    """Rewards, each as [perception:|reasoning:]NAME[=WEIGHT] or, for a function of your own,
    FILE.py:FUNCTION[=WEIGHT]; the segment (default: reasoning) is the one whose advantage the
    reward enters. With this option only the rewards given here count; `default` stands for
    accuracy + format + length of each segment."""
    accuracy_weight: float = 1.0
    """Weight of the default accuracy terms: the answer's metric, the judge's verdict."""
    format_weight: float = 1.0
    """Weight of the default format terms: a segment's tags are well formed, nothing else stands
    outside of them."""
    length_weight: float = 1.0
    """Weight of the default length terms; 0 switches them off."""
    length_bonus: float = 0.2
    """Bonus of a segment with accuracy and format above 0 and a length in range."""
    perception_tokens: tuple[int, int] = (128, 320)
    """Least and most tokens of an observation that earn the bonus."""
    reasoning_tokens: tuple[int, int] = (320, 512)
    """Least and most tokens of think and answer together that earn the bonus."""
    integer_seconds: bool = False
    """Score times in whole seconds, as APPO's released reward does, not in real ones."""


class JudgeCallOptions(
    BackendOptions,
    JudgeReplyOptions,
    defaults={"concurrency": 64, "timeout_seconds": 120},
    renamed={
        "judge_concurrency": "concurrency",
        "judge_timeout_seconds": "timeout_seconds",
        "judge_device": "device",
    },
    choices={"judge_prompt": lambda: JUDGE_PROMPTS},
    group="judge",
):
    """How the judge of a training run is called (`judges.backends.session.CallOptions`)."""

    judge_prompt: str = "sufficiency"
    """The judge's prompt: the paper's, or a shorter one for small judges."""


class JudgeOutageOptions(Config, group="judge"):
    """When the judge is asked, and what happens while it is down."""

    judge_ahead: bool = True
    """Ask the judge about an observation as soon as it is closed, while the rest of its completion
    is sampled; the call is wasted if the completion breaks its template later."""
    missing_rewards_limit: float = Field(0.2, ge=0, le=1)
    """Share of a step's verdicts without a reply above which training pauses, asks again, and in
    the end stops with a checkpoint."""
    judge_pause_seconds: float = Field(10, ge=0)
    """The first such pause; each further one is twice as long, 5 minutes at most."""
    judge_pauses: int = Field(5, ge=0)
    """Pauses in a row after which training stops."""
