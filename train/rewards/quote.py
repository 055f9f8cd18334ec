"""What the judge of a training run will cost, before anything is paid: `train.rl --dry-run`.

Requests about an evenly spaced sample of the run's own questions are counted as `pipeline.estimate`
counts those of a build. What only rollouts can tell is assumed, and printed beside the result: how
many of them are judged, and how long observations and verdicts are. `--pilot RUN` replaces these by
what a shorter run saw.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.config import UsageError
from judges.backends.base import BackendUnavailableError
from judges.backends.prices import Prices
from judges.backends.registry import takes_no_money
from judges.backends.session import opened_backend
from judges.quotes import StepEstimate, count_tokens, dollars, estimated_step, price_of
from judges.sufficiency import sufficiency_request
from schemas.ledger.file import LedgerError, reading
from schemas.questions import VideoQuestion
from train.rewards.options import JudgeCallOptions

SAMPLE_SIZE = 48
_OBSERVATION_TOKENS = 100  # VideoP2R prints observations of 60 to 75 words
_VERDICT_TOKENS = 90
_TRL_EPOCHS = 3.0  # transformers' TrainingArguments.num_train_epochs
_CALLS = """
SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0)
FROM calls WHERE step = 'filter'"""


@dataclass(frozen=True)
class JudgeHabits:
    """What a judge is asked by a rollout, and how long texts are, in tokens."""

    calls_per_rollout: float = 1.0
    observation_tokens: float = _OBSERVATION_TOKENS
    verdict_tokens: float = _VERDICT_TOKENS
    request_tokens: float | None = None
    """Of a whole request, where that was seen; else it is counted."""
    source: str = "assumed: every rollout is judged once"


def habits_by_options(perception_tokens: tuple[int, int], *, has_length_bonus: bool) -> JudgeHabits:
    """What is assumed without a pilot: observations in the middle of the range that is paid for."""
    if not has_length_bonus:
        return JudgeHabits()
    return JudgeHabits(observation_tokens=sum(perception_tokens) / 2)


def habits_of_run(folder: Path, num_rollouts: int) -> JudgeHabits:
    """What the ledgers of an earlier run hold, which had that many rollouts. Raises UsageError."""
    calls = inputs = outputs = 0
    try:
        for path in sorted(folder.glob("judge-*.duckdb")):
            with reading(path) as connection:
                (row,) = connection.execute(_CALLS).fetchall()
            calls, inputs, outputs = calls + row[0], inputs + row[1], outputs + row[2]
    except LedgerError as error:
        raise UsageError(f"--pilot: {error}") from None
    if not calls or not num_rollouts:
        raise UsageError(
            f"--pilot {folder} has asked no judge; give the output folder of a run that has, or"
            " leave it out"
        )
    return JudgeHabits(
        calls_per_rollout=calls / num_rollouts,
        verdict_tokens=outputs / calls,
        request_tokens=inputs / calls,
        source=f"seen in {calls:,} calls of {num_rollouts:,} rollouts in {folder}",
    )


@dataclass(frozen=True)
class RunLength:
    """How TRL counts the steps of a run, from its settings as `train.rl_checks` resolves them."""

    trl: Mapping[str, Any]
    prompts_per_generation: int
    """Over all processes."""
    group_size: int
    num_processes: int

    def steps(self, num_questions: int) -> int:
        """Optimizer steps of a whole run: --max-steps, or what the epochs make."""
        given = int(self.trl.get("max_steps") or 0)
        if given > 0:
            return given
        in_epoch = num_questions // self.prompts_per_generation * self._lasts
        epochs = float(self.trl.get("num_train_epochs", _TRL_EPOCHS))
        return math.ceil(epochs * max(1, math.ceil(in_epoch / self._accumulation)))

    def rollouts(self, steps: int) -> int:
        """The rollouts that this number of optimizer steps learns from."""
        generations = math.ceil(steps * self._accumulation / self._lasts)
        return generations * self.prompts_per_generation * self.group_size

    @property
    def _accumulation(self) -> int:
        return int(self.trl.get("gradient_accumulation_steps", 1))

    @property
    def _lasts(self) -> int:
        """Micro-batches that one generation is learned from."""
        at_once = int(self.trl["per_device_train_batch_size"]) * self.num_processes
        in_generation = self.prompts_per_generation * self.group_size // at_once
        return in_generation * int(self.trl.get("num_iterations", 1))


@dataclass(frozen=True)
class JudgeQuote:
    """What a run's judge will be asked."""

    estimate: StepEstimate
    rollouts: int
    steps: int
    counted_by: str
    habits: JudgeHabits
    prices: str

    def text(self, max_cost_usd: float | None = None) -> str:
        """The lines that are printed."""
        one, habits = self.estimate, self.habits
        is_seen = habits.request_tokens is not None
        lengths = f"{habits.verdict_tokens:.0f} tokens a verdict"
        if not is_seen:
            lengths = f"{habits.observation_tokens:.0f} tokens an observation, {lengths}"
        lines = [
            f"judge {one.backend}: {one.calls:,} calls for {self.rollouts:,} rollouts in"
            f" {self.steps:,} steps; {one.input_tokens:,} input tokens,"
            f" {one.output_tokens:,} output tokens; {dollars(one.usd)}",
            f"{habits.source}; {lengths}; input tokens: {self.counted_by}",
            f"prices: {self.prices}; give unknown ones with --prices",
        ]
        if not is_seen:
            lines.append("a run of some steps replaces what is assumed: --pilot ITS_OUTPUT_DIR")
        if one.usd is not None and max_cost_usd is not None and one.usd > max_cost_usd:
            lines.append(
                f"that is more than --max-cost-usd {max_cost_usd:g}: the run would stop before its"
                " end"
            )
        return "\n".join(lines)


def judge_quote(
    judge: str,
    options: JudgeCallOptions,
    questions: Sequence[VideoQuestion],
    habits: JudgeHabits,
    *,
    rollouts: int,
    steps: int,
    media_root: Path,
) -> JudgeQuote:
    """The quote of a run with this number of rollouts. Raises UsageError."""
    try:
        prices = Prices.load(options.prices)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if habits.request_tokens is None:
        tokens, counted_by = asyncio.run(_counted(judge, options, questions, habits, media_root))
    else:
        tokens, counted_by = [habits.request_tokens], "as seen there"
    calls = rollouts * habits.calls_per_rollout
    return JudgeQuote(
        estimated_step(
            "filter", judge, calls, tokens, habits.verdict_tokens, price_of(prices, judge)
        ),
        rollouts,
        steps,
        counted_by,
        habits,
        f"{prices.source}, {prices.dated}",
    )


async def _counted(
    judge: str,
    options: JudgeCallOptions,
    questions: Sequence[VideoQuestion],
    habits: JudgeHabits,
    media_root: Path,
) -> tuple[list[float], str]:
    """Input tokens of a request about each sampled question, and what counted them."""
    observation = "word " * math.ceil(habits.observation_tokens)
    stride = max(1, len(questions) // SAMPLE_SIZE)
    tokens: list[float] = []
    counters: set[str] = set()
    async with AsyncExitStack() as closing:
        backend, note = None, ""
        if not takes_no_money(judge):
            try:
                opened = opened_backend(judge, options, media_root=media_root)
                backend = await closing.enter_async_context(opened)
            except BackendUnavailableError as error:
                note = f" ({error})"
        for question in questions[::stride]:
            request, _ = sufficiency_request(
                question,
                observation,
                max_tokens=options.judge_max_tokens,
                variant=options.judge_prompt,
            )
            number, counter = await count_tokens(backend, request)
            tokens.append(number)
            counters.add(counter)
    return tokens, f"counted by {', '.join(sorted(counters))}{note}, on {len(tokens)} questions"
