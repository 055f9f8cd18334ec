"""The judge of a training run: calls in the background, paid once, recorded in the run's folder.

Calls go through the builder's call layer (cache, retries, rate limits, budget) in a thread of their
own, so they go on while the device computes. One process has one ledger, `judge-0.duckdb` for
process 0: after a resume the same call is answered from it. `judges.audit sample` draws from it.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cli.config import EXIT_OK, UsageError
from judges.backends.base import Backend, BackendUnavailableError
from judges.backends.budget import BudgetExhausted, StopRequested
from judges.backends.call_records import CallFailure
from judges.backends.calls import CallLimits
from judges.backends.session import CallSession, call_limits, opened_backend
from judges.sufficiency import (
    SufficiencyOutcome,
    judge_sufficiency,
    prompt_file,
    verdict_of_failure,
)
from schemas.ledger.ledger import Ledger, LedgerError
from schemas.ledger.rows import AttemptRow, SufficiencyRow
from schemas.questions import VideoQuestion
from schemas.runs import RunInfo, start_run
from schemas.samples import Reason
from train.rewards.background_loop import BackgroundLoop
from train.rewards.options import JudgeCallOptions

_CLOSE_SECONDS = 30.0
_RETRY_SECONDS = (0.5, 60.0)


@dataclass(frozen=True)
class JudgeStats:
    """Calls of this process since it started. The difference of two is what lies between them."""

    calls: int = 0
    """Finished calls that went to the judge."""
    cache_hits: int = 0
    """Calls that were answered by an earlier reply, or by an identical call in flight."""
    failures: int = 0
    """Calls that ended without a usable reply."""
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    """Dollars where the price is known."""

    def __sub__(self, other: "JudgeStats") -> "JudgeStats":
        return self._combined(other, -1)

    def __add__(self, other: "JudgeStats") -> "JudgeStats":
        return self._combined(other, 1)

    def _combined(self, other: "JudgeStats", sign: int) -> "JudgeStats":
        return JudgeStats(
            **{
                field.name: getattr(self, field.name) + sign * getattr(other, field.name)
                for field in fields(self)
            }
        )


class JudgeClient:
    """One judge for one process. Close it, or use it in a `with` statement.

    `spec` is what a build's --judge takes. `policy` names the model that wrote the observations, in
    the ledger. Waits before a call is tried again double from the first of `retry_seconds` to the
    second. Raises UsageError where the judge cannot be opened, takes no temperature, has no
    price although there is a budget, or where the ledger cannot be used.
    """

    def __init__(
        self,
        spec: str,
        *,
        ledger_path: Path,
        media_root: Path,
        options: JudgeCallOptions | None = None,
        run: RunInfo | None = None,
        policy: str = "",
        frame_spec: str = "",
        retry_seconds: tuple[float, float] = _RETRY_SECONDS,
    ) -> None:
        self.spec = spec
        self.options = options or JudgeCallOptions.model_validate({})
        self._policy, self._frame_spec = policy, frame_spec
        self._retry_seconds = retry_seconds
        self._past = self._taken = JudgeStats()
        self._tasks: set[Future[SufficiencyOutcome]] = set()
        self._ahead: dict[tuple[str, str], Future[SufficiencyOutcome]] = {}
        self._loop = BackgroundLoop("judge")
        self._open = AsyncExitStack()
        run = run or start_run("train.rl", {"judge": spec})
        with ExitStack() as undoing:
            undoing.callback(self._loop.close)
            undoing.callback(lambda: self._loop.run(self._open.aclose()))
            try:
                self._backend = self._loop.run(self._opened_backend(media_root))
                self._ledger = undoing.enter_context(Ledger.open(ledger_path, run))
            except (BackendUnavailableError, LedgerError, ValueError) as error:
                raise UsageError(str(error)) from error
            self._session = CallSession(self.options, self._ledger, limits=self._limits())
            self._calls = self._session.calls(self._backend)
            undoing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def check(self) -> None:
        """Raise UsageError, within seconds, where the judge's server does not answer."""
        self._loop.run(self._session.check_reachable(self._backend))

    def submit(
        self, question: VideoQuestion, observation: str, *, output: str = "", first_draw: int = 0
    ) -> "Future[SufficiencyOutcome]":
        """Ask for the verdict on an observation; returns at once.

        A call that fails for good is an unscored outcome with its failure. The future raises
        BudgetExhausted where the next call might pass the budget. `output` is the whole completion,
        for the ledger. `first_draw` as in `judges.sufficiency.judge_sufficiency`.
        """
        ahead = self._ahead.pop((question.question_id, observation), None)
        return self._begin(self._judge(question, observation, output, first_draw, ahead))

    def ask_ahead(self, question: VideoQuestion, observation: str, *, first_draw: int = 0) -> None:
        """Begin the calls of a verdict before `submit` asks for it; `submit` records it."""
        key = (question.question_id, observation)
        if key not in self._ahead:
            self._ahead[key] = self._begin(self._ask(question, observation, first_draw))

    def forget_ahead(self) -> None:
        """Forget verdicts that were begun ahead and that `submit` did not ask for."""
        self._ahead.clear()

    def note_leak(self, question: VideoQuestion, observation: str, leak: str, output: str) -> None:
        """Record an observation that claims the answer, for which no judge is paid."""
        self._add_attempt(question, observation, output)
        self._ledger.add_sufficiency(
            SufficiencyRow.of_leak(
                question.question_id, draw_of(observation), leak, judge=self.spec
            )
        )

    def forget_failures(self, call_keys: Iterable[str]) -> None:
        """Let these failed calls be made again; a stop after many failures in a row is over.

        Failures of earlier steps stay: when a resumed run repeats such a step, the same verdicts
        are missing.
        """
        self.forget_ahead()
        self._ledger.forget_failed_calls(call_keys)
        self._past += self._layer_stats()
        self._calls = self._session.calls(self._backend)

    def stats(self) -> JudgeStats:
        """All calls so far."""
        return self._past + self._layer_stats()

    def take_stats(self) -> JudgeStats:
        """The calls since this was called last."""
        before, self._taken = self._taken, self.stats()
        return self._taken - before

    def close(self, exit_status: int = EXIT_OK) -> None:
        """Let calls in flight end (at most half a minute), and close backend and ledger."""
        if self._loop.is_closed:
            return
        try:
            self._loop.run(self._finish())
            self._ledger.end_run(exit_status)
        finally:
            self._ledger.close()
            self._loop.close()

    async def _opened_backend(self, media_root: Path) -> Backend:
        return await self._open.enter_async_context(
            opened_backend(
                self.spec,
                self.options,
                media_root=media_root,
                temperature=self.options.judge_temperature,
                temperature_option="--judge-temperature",
            )
        )

    def _limits(self) -> CallLimits:
        base, cap = self._retry_seconds
        limits = call_limits(self.options)
        return replace(limits, retry_base_seconds=base, retry_cap_seconds=cap)

    def _layer_stats(self) -> JudgeStats:
        stats = self._calls.stats
        return JudgeStats(
            calls=stats.calls,
            cache_hits=stats.cached + stats.merged,
            failures=stats.failures,
            retries=stats.retries,
            input_tokens=stats.input_tokens,
            output_tokens=stats.output_tokens,
            cost_usd=stats.cost_usd,
        )

    async def _ask(
        self, question: VideoQuestion, observation: str, first_draw: int
    ) -> SufficiencyOutcome:
        temperature = self.options.judge_temperature
        try:
            return await judge_sufficiency(
                self._calls,
                question,
                observation,
                retries=self.options.retries,
                max_tokens=self.options.judge_max_tokens,
                variant=self.options.judge_prompt,
                sampling=() if temperature is None else (("temperature", temperature),),
                first_draw=first_draw,
            )
        except BudgetExhausted:
            raise
        except StopRequested as stop:  # the layer gave up on the server
            failure = CallFailure(Reason.CALL_FAILED, str(stop))
            prompt_id = prompt_file(self.options.judge_prompt)[1]
            return SufficiencyOutcome(verdict_of_failure(failure), (), failure, prompt_id)

    async def _judge(
        self,
        question: VideoQuestion,
        observation: str,
        output: str,
        first_draw: int,
        ahead: "Future[SufficiencyOutcome] | None",
    ) -> SufficiencyOutcome:
        if ahead is None:
            outcome = await self._ask(question, observation, first_draw)
        else:
            outcome = await asyncio.wrap_future(ahead)
        self._add_attempt(question, observation, output)
        for asked in outcome.replies:
            self._ledger.add_sufficiency(
                SufficiencyRow.of_reply(
                    question.question_id,
                    draw_of(observation),
                    asked.verdict,
                    judge=self.spec,
                    judge_draw=asked.judge_draw,
                    call_key=asked.call_key,
                    prompt_id=outcome.prompt_id,
                    reply=asked.reply,
                )
            )
        return outcome

    def _add_attempt(self, question: VideoQuestion, observation: str, output: str) -> None:
        self._ledger.add_question(question)
        self._ledger.add_attempt(
            AttemptRow(
                question_id=question.question_id,
                draw=draw_of(observation),
                call_key="",
                output=output or observation,
                observation=observation,
                generator=self._policy,
                frame_spec=self._frame_spec,
            )
        )

    async def _finish(self) -> None:
        self._calls.stop("the run ends")
        waiting = [asyncio.wrap_future(task) for task in list(self._tasks)]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        await self._open.aclose()

    def _begin(self, work: Coroutine[Any, Any, SufficiencyOutcome]) -> "Future[SufficiencyOutcome]":
        asked = self._loop.start(work)
        self._tasks.add(asked)
        asked.add_done_callback(self._tasks.discard)
        return asked


def draw_of(observation: str) -> int:
    """The ledger's `draw` of an observation: 31 bits of its hash.

    So a resumed run that samples it again, or another process, writes the same row.
    """
    digest = blake2b(observation.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest) >> 1
