"""The judge of a training run: calls in the background, paid once, recorded in the run's folder.

An event loop in a thread of its own runs the builder's call layer (cache, retries, rate limits,
budget), so calls go on while the device computes. One process has one ledger, `judge-0.duckdb` for
process 0: after a resume the same call is answered from it. `judges.audit sample` draws from it.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from judges.backends.base import Backend, BackendUnavailableError
from judges.backends.budget import Budget, BudgetExhausted, StopRequested
from judges.backends.call_records import CallFailure
from judges.backends.calls import CallLimits, Calls
from judges.backends.prices import Prices
from judges.backends.registry import BackendOptions, open_backend, takes_no_money
from judges.sufficiency import (
    SufficiencyOutcome,
    judge_sufficiency,
    prompt_file,
    verdict_of_failure,
)
from schemas.config import EXIT_OK, UsageError
from schemas.ledger import Ledger, LedgerError
from schemas.questions import VideoQuestion
from schemas.runs import RunInfo, start_run
from schemas.samples import Reason
from train.judge_check import check_judge, quick_limits
from train.judge_options import JudgeOptions, JudgeStats

_T = TypeVar("_T")
_CLOSE_SECONDS = 30.0


class JudgeCalls:
    """One judge for one process. Close it, or use it in a `with` statement.

    `spec` is what a build's --judge takes. `policy` names the model that wrote the observations, in
    the ledger. Raises UsageError where the judge cannot be opened, takes no temperature, has no
    price although there is a budget, or where the ledger cannot be used.
    """

    def __init__(
        self,
        spec: str,
        *,
        ledger_path: Path,
        media_root: Path,
        options: JudgeOptions | None = None,
        run: RunInfo | None = None,
        policy: str = "",
        frame_spec: str = "",
    ) -> None:
        self.spec = spec
        self.options = options or JudgeOptions()
        self._policy, self._frame_spec = policy, frame_spec
        self._past = JudgeStats()
        self._tasks: set[Future[SufficiencyOutcome]] = set()
        self._ahead: dict[tuple[str, str], Future[SufficiencyOutcome]] = {}
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()
        with ExitStack() as undoing:
            undoing.callback(self._end_loop)
            try:
                self._backend = self._open_backend(media_root)
                undoing.callback(lambda: self._run(self._backend.aclose()))
                self._prices = Prices.load(self.options.prices)
                run = run or start_run("train.rl", {"judge": spec})
                self._ledger = undoing.enter_context(Ledger.open(ledger_path, run))
                self._budget = Budget(
                    self.options.max_cost_usd, already_spent_usd=self._ledger.spent_usd()
                )
                self._calls = self._layer(self._limits())
            except (BackendUnavailableError, LedgerError, ValueError) as error:
                raise UsageError(str(error)) from error
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
        """Raise UsageError, within seconds, where the judge's server does not answer.

        A free token count where the server has one, else one short call, recorded and paid. A judge
        in this process has been reached when it was opened.
        """
        if not takes_no_money(self.spec):
            calls = self._layer(quick_limits(self._limits()))
            num_earlier_runs = len(self._ledger.run_configs())
            self._run(check_judge(self._backend, calls, draw=num_earlier_runs))

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
        """Begin the calls of a verdict that `submit` is expected to want, which records it."""
        key = (question.question_id, observation)
        if key not in self._ahead:
            self._ahead[key] = self._begin(self._ask(question, observation, first_draw))

    def forget_ahead(self) -> None:
        """Verdicts that were begun ahead and not wanted are not kept for later."""
        self._ahead.clear()

    def note_leak(self, question: VideoQuestion, observation: str, leak: str, output: str) -> None:
        """Record an observation that claims the answer, for which no judge is paid."""
        self._add_attempt(question, observation, output)
        self._ledger.add_sufficiency(
            self._verdict_row(question, observation)
            | {"answer_leak": True, "leak_text": leak, "verdict": None}
        )

    def forget_failures(self, call_keys: Iterable[str]) -> None:
        """Let these failed calls be made again; a stop after many failures in a row is over.

        Failures that an earlier step was learned with stay: it resumes with what it had.
        """
        self.forget_ahead()
        self._ledger.forget_failed_calls(call_keys)
        self._past += self._layer_stats()
        self._calls = self._layer(self._limits())

    def stats(self) -> JudgeStats:
        """What was asked so far."""
        return self._past + self._layer_stats()

    def close(self, exit_status: int = EXIT_OK) -> None:
        """Let calls in flight end (at most half a minute), and close backend and ledger."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._run(self._finish())
            self._ledger.end_run(exit_status)
        finally:
            self._ledger.close()
            self._end_loop()

    def _open_backend(self, media_root: Path) -> Backend:
        options = BackendOptions(
            api_key_env=self.options.api_key_env,
            timeout_seconds=self.options.timeout_seconds,
            local_batch_size=self.options.local_batch_size,
            media_root=media_root,
            device=self.options.device,
        )
        backend = self._run(open_backend(self.spec, options))
        temperature = self.options.temperature
        if temperature is not None and "temperature" not in backend.info.takes_sampling:
            self._run(backend.aclose())
            raise UsageError(
                f"a temperature of {temperature:g} was given for the judge, but {self.spec} takes"
                " none; leave it out"
            )
        return backend

    def _layer(self, limits: CallLimits) -> Calls:
        return Calls(
            self._backend,
            self._ledger,
            limits=limits,
            prices=self._prices,
            budget=self._budget,
            run_id=self._ledger.run_id,
        )

    def _limits(self) -> CallLimits:
        return CallLimits(
            max_concurrency=self.options.concurrency,
            retry_base_seconds=self.options.retry_base_seconds,
            retry_cap_seconds=self.options.retry_cap_seconds,
            requests_per_minute=self.options.requests_per_minute,
            tokens_per_minute=self.options.tokens_per_minute,
        )

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
        temperature = self.options.temperature
        try:
            return await judge_sufficiency(
                self._calls,
                question,
                observation,
                retries=self.options.retries,
                max_tokens=self.options.max_tokens,
                variant=self.options.variant,
                sampling=() if temperature is None else (("temperature", temperature),),
                first_draw=first_draw,
            )
        except BudgetExhausted:
            raise
        except StopRequested as stop:  # the layer gave up on the server
            failure = CallFailure(Reason.CALL_FAILED, str(stop))
            prompt_id = prompt_file(self.options.variant)[1]
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
                self._verdict_row(question, observation)
                | {
                    "judge_draw": asked.judge_draw,
                    "call_key": asked.call_key,
                    "verdict": asked.verdict.verdict,
                    "unscored_reason": asked.verdict.unscored_reason,
                    "prompt_id": outcome.prompt_id,
                    "reply": asked.reply,
                }
            )
        return outcome

    def _add_attempt(self, question: VideoQuestion, observation: str, output: str) -> None:
        self._ledger.add_question(question)
        self._ledger.add_attempt(
            {
                "question_id": question.question_id,
                "draw": draw_of(observation),
                "call_key": "",
                "output": output or observation,
                "observation": observation,
                "generator": self._policy,
                "frame_spec": self._frame_spec,
            }
        )

    def _verdict_row(self, question: VideoQuestion, observation: str) -> dict[str, object]:
        return {
            "question_id": question.question_id,
            "draw": draw_of(observation),
            "judge": self.spec,
        }

    async def _finish(self) -> None:
        self._calls.stop("the run ends")
        waiting = [asyncio.wrap_future(task) for task in list(self._tasks)]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        await self._backend.aclose()

    def _begin(self, work: Coroutine[Any, Any, SufficiencyOutcome]) -> "Future[SufficiencyOutcome]":
        if self._is_closed:
            work.close()
            raise RuntimeError("the judge is closed")
        asked = self._submit(work)
        self._tasks.add(asked)
        asked.add_done_callback(self._tasks.discard)
        return asked

    def _submit(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._submit(work).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def draw_of(observation: str) -> int:
    """Names an observation among those of a question, as the ledger's `draw`: 31 bits of its hash.

    A resumed run that samples it again, or another process, then writes the same row.
    """
    digest = blake2b(observation.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest) >> 1
