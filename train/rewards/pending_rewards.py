"""Rewards that are on their way, and who gives them to a trainer."""

from collections.abc import Callable, Sequence
from typing import Protocol

from schemas.questions import VideoQuestion
from train.rewards.judge_health import JudgeUse
from train.rollouts.types import GroupRewards, RolloutGroup


class PendingRewards:
    """The rewards of a step's groups, on their way. A `RewardSource` makes it."""

    def __init__(
        self, finish: Callable[[], list[GroupRewards]], use: Callable[[], JudgeUse] = JudgeUse
    ) -> None:
        self._finish, self._use = finish, use
        self._rewards: list[GroupRewards] | None = None

    def wait(self) -> list[GroupRewards]:
        """The rewards of each group, in order; a second call returns them again.

        Raises JudgeUnavailableError or RewardError where training must stop.
        """
        if self._rewards is None:
            self._rewards = self._finish()
        return self._rewards

    @property
    def use(self) -> JudgeUse:
        """The judge's part in them; complete after `wait`."""
        return self._use()


class RewardSource(Protocol):
    """Rewards groups in the background: `GroupRewarder`, or a replay of known rewards."""

    def ask_ahead(self, question: VideoQuestion, text: str) -> bool:
        """Begin what a completion that starts with `text` will need; whether that is all of it."""

    def start(self, groups: Sequence[RolloutGroup]) -> PendingRewards:
        """Begin, and return at once."""
