"""Rewards of completions that another trainer has sampled: text in, numbers out.

    rewarder = CompletionRewarder(read_reward_options("rewards.yaml"), tokenizer=tokenizer)
    (reward,) = rewarder.rewards([question], ["<observation>..."])
    reward.perception.total, reward.reasoning.total, reward.total     # NaN: missing, never 0

The options are those of `train.rl` under the same names. Calls of the judge go through the same
layer: cache, retries, limits, budget, and a ledger in `output_dir`, from which a second run answers
what the first one has asked.
"""

import atexit
import math
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError
from torch import Tensor

from cli.config import UsageError, read_config
from cli.config_file import written_options
from cli.option_groups import (
    AnswerLeakOptions,
    JudgeOptions,
    ModelOptions,
    OutputOptions,
    PluginOptions,
    TemplateOptions,
)
from cli.output_folder import make_folder
from schemas.questions import VideoQuestion
from schemas.samples import Sufficiency
from schemas.traces import TEMPLATES
from schemas.trainer_rows import question_column as question_column
from train.modeling.loading import load_processor
from train.rewards.group_rewarder import GroupRewarder, JudgePatience
from train.rewards.judge_client import JudgeClient
from train.rewards.options import JudgeCallOptions, JudgeOutageOptions, RewardOptions
from train.rewards.pending_rewards import PendingRewards
from train.rewards.plan import RewardPlan, read_rewards
from train.rewards.segment_rewards import RewardConfig
from train.rollouts.segments import TokenBytes, rollouts_of
from train.rollouts.types import Rollout, RolloutGroup, SegmentReward

OPTIONS_VARIABLE = "P2R_REWARDS"
"""Environment variable that names the YAML file of options, where a trainer loads our functions by
name and hands them nothing else."""


class CompletionRewardOptions(
    PluginOptions,
    OutputOptions[Path],
    ModelOptions[str | None],
    JudgeOptions[str | None],
    TemplateOptions,
    RewardOptions,
    AnswerLeakOptions,
    JudgeOutageOptions,
    JudgeCallOptions,
    defaults={"judge": None, "model": None},
    notes={
        "output_dir": "It gets the judge's ledgers, one for each process.",
        "model": "Its tokenizer counts tokens, for rewards of length.",
        "judge": "It earns perception its reward.",
        "judge_ahead": "Without effect: completions come whole.",
    },
):
    """Options of the rewards of completions that were sampled elsewhere."""


@dataclass(frozen=True)
class CompletionReward:
    """What one completion has earned."""

    perception: SegmentReward | None
    """None where nothing rewards perception."""
    reasoning: SegmentReward
    verdict: Sufficiency | None
    """The judge's verdict; None where it was not asked."""
    named: Mapping[str, float]
    """Values of the rewards of `reward`, unweighted, by name; NaN = missing."""
    segment_ids: Tensor
    """long [C]: 1 perception, 2 reasoning; empty without a tokenizer."""

    @property
    def total(self) -> float:
        """Perception's reward and reasoning's together; NaN where either is missing."""
        return self.reasoning.total + (0.0 if self.perception is None else self.perception.total)


class CompletionRewarder:
    """Rewards completions, with the judge at work in the background. Close it at the end.

    `tokenizer` (byte-level) counts tokens and finds segments in token ids; without one `model` of
    the options is asked for its own, and without that there are no rewards of length. Any thread
    may call it. Raises UsageError where options do not fit each other or the judge does not answer.
    """

    def __init__(
        self,
        options: CompletionRewardOptions,
        *,
        tokenizer: Any = None,
        retry_seconds: tuple[float, float] = (0.5, 60.0),
    ) -> None:
        self.options, self.template = options, TEMPLATES[options.template]
        if tokenizer is None and options.model is not None:
            tokenizer = load_processor(options.model).tokenizer
        self._tokenizer, self._token_bytes = tokenizer, _bytes_of(tokenizer)
        plan = read_rewards(options.reward, self.template, integer_seconds=options.integer_seconds)
        self.rewards_perception = bool(plan.of("perception")) or (
            options.judge is not None and "perception" in plan.default
        )
        self._refuse_uncounted_lengths(plan)
        self._starting = threading.Lock()
        with ExitStack() as closing:
            judge = None
            if options.judge is not None:
                judge = closing.enter_context(_opened_judge(options, closing, retry_seconds))
                judge.check()
            self._rewarder = _rewarder(options, plan, judge)
            closing.callback(self._rewarder.close)
            # In their order, and one at a time: steps share what they know of the judge's health.
            self._waiting = ThreadPoolExecutor(1, "rewards")
            closing.callback(self._waiting.shutdown)
            self._closing = closing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what was begun, and close the judge and its ledger."""
        self._closing.close()

    def begin(
        self,
        questions: Sequence[VideoQuestion],
        texts: Sequence[str],
        token_ids: Sequence[Sequence[int]] | None = None,
    ) -> "Future[list[CompletionReward]]":
        """Ask the judge, and return at once; the future gives one reward for each completion.

        `token_ids` are the tokens that were sampled, end token included: with them the text is
        theirs, and `texts` is not read. The future raises JudgeUnavailableError or RewardError
        where training must stop, as `train.rl` does.
        """
        rollouts = [
            self._rollout(text, None if token_ids is None else token_ids[number])
            for number, text in enumerate(texts)
        ]
        groups = [
            RolloutGroup(question, {}, (rollout,))
            for question, rollout in zip(questions, rollouts, strict=True)
        ]
        with self._starting:
            return self._waiting.submit(_finished, self._rewarder.start(groups), rollouts)

    def rewards(
        self,
        questions: Sequence[VideoQuestion],
        texts: Sequence[str],
        token_ids: Sequence[Sequence[int]] | None = None,
    ) -> list[CompletionReward]:
        """As `begin`, once they are there."""
        return self.begin(questions, texts, token_ids).result()

    def _rollout(self, text: str, token_ids: Sequence[int] | None) -> Rollout:
        if self._token_bytes is None:
            nothing = torch.zeros(0, dtype=torch.long)
            return Rollout(nothing, text, False, nothing, {})
        if token_ids is None:
            token_ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if not len(token_ids):
            nothing = torch.zeros(0, dtype=torch.long)
            return Rollout(nothing, "", True, nothing, {})
        tokens = torch.tensor(list(token_ids), dtype=torch.long)
        return rollouts_of([tokens], self._token_bytes, self.template, ())[0]

    def _refuse_uncounted_lengths(self, plan: RewardPlan) -> None:
        has_default = bool(plan.default) and self.options.length_weight != 0
        if self._token_bytes is None and (has_default or plan.needing("token_range")):
            raise UsageError(
                "rewards of length count tokens, and there is no tokenizer; give one, or its"
                " model's folder as the option model, or length_weight 0"
            )


def read_reward_options(source: Path | str | Mapping[str, Any]) -> CompletionRewardOptions:
    """The options in a YAML file, or in a mapping of names to values. Raises UsageError."""
    if isinstance(source, Mapping):
        with written_options(source) as path:
            return read_reward_options(path)
    words = ["--config", str(source)]
    return read_config(CompletionRewardOptions, words, prog="rewards", description=__doc__)


def shared_rewarder(source: str | None = None) -> CompletionRewarder:
    """The one rewarder of this process for a YAML file of options, by default that of P2R_REWARDS.

    It is closed when the process ends. Raises UsageError.
    """
    path = source or os.environ.get(OPTIONS_VARIABLE)
    if not path:
        raise UsageError(
            f"{OPTIONS_VARIABLE} is not set: let it name the YAML file with the options of the"
            " rewards"
        )
    return _rewarder_of(path)


@cache
def _rewarder_of(path: str) -> CompletionRewarder:
    rewarder = CompletionRewarder(read_reward_options(path))
    atexit.register(rewarder.close)
    return rewarder


def question_of(value: object) -> VideoQuestion:
    """The question in a dataset's column `question`. Raises UsageError."""
    try:
        if isinstance(value, str):
            return VideoQuestion.model_validate_json(value)
        return VideoQuestion.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise UsageError(
            f"the column question of a row holds {str(value)[:80]!r}, which is no question"
            f" ({place}: {first['msg']}); fill it by"
            " train.integrations.completion_rewards.question_column"
        ) from None


def as_missing(value: float) -> float | None:
    """A number as trainers take it that know a missing one as None."""
    return None if math.isnan(value) else value


def _finished(pending: PendingRewards, rollouts: Sequence[Rollout]) -> list[CompletionReward]:
    return [
        CompletionReward(
            perception=None if found.perception is None else found.perception[0],
            reasoning=found.reasoning[0],
            verdict=found.verdicts[0],
            named={label: values[0] for label, values in found.named.items()},
            segment_ids=rollout.segment_ids,
        )
        for found, rollout in zip(pending.wait(), rollouts, strict=True)
    ]


def _bytes_of(tokenizer: Any) -> TokenBytes | None:
    try:
        return None if tokenizer is None else TokenBytes(tokenizer)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _opened_judge(
    options: CompletionRewardOptions, closing: ExitStack, retry_seconds: tuple[float, float]
) -> JudgeClient:
    assert options.judge is not None
    return JudgeClient(
        options.judge,
        ledger_path=_own_ledger(options.output_dir, closing),
        media_root=options.output_dir,  # the judge reads texts only
        options=options,
        policy=options.model or "",
        retry_seconds=retry_seconds,
    )


def _own_ledger(folder: Path, closing: ExitStack) -> Path:
    """The first `judge-N.duckdb` of the folder that no other process has: held until closed."""
    make_folder(folder)
    for number in count():
        lock = FileLock(folder / f"judge-{number}.lock")
        try:
            closing.enter_context(lock.acquire(timeout=0))
        except Timeout:
            continue
        return folder / f"judge-{number}.duckdb"
    raise AssertionError("count() does not end")


def _rewarder(
    options: CompletionRewardOptions, plan: RewardPlan, judge: JudgeClient | None
) -> GroupRewarder:
    try:
        return GroupRewarder(
            TEMPLATES[options.template],
            RewardConfig(
                **{each.name: getattr(options, each.name) for each in fields(RewardConfig)}
            ),
            judge,
            plan=plan,
            allow_leaks=options.allow_leaks,
            patience=JudgePatience(
                max_missing_share=options.missing_rewards_limit,
                pause_seconds=options.judge_pause_seconds,
                max_pauses=options.judge_pauses,
            ),
            asks_ahead=False,
        )
    except ValueError as error:
        raise UsageError(f"rewards of completions sampled elsewhere: {error}") from None
