"""A backend that does what a test tells it: replies and errors in turn, or as a function says."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from judges.backends.base import (
    Backend,
    BackendInfo,
    BatchInfo,
    BatchResult,
    CallError,
    ChatRequest,
    Reply,
    StopReason,
    TextPart,
    Usage,
)
from judges.backends.budget import Budget
from judges.backends.calls import CallLimits, Calls
from judges.backends.prices import Prices
from schemas.ledger.ledger import Ledger
from schemas.runs import start_run

FAST = CallLimits(retry_base_seconds=0.001, retry_cap_seconds=0.002)

# claude-opus-5-5 costs 4 and 20 dollars per million tokens: 1,000 in and 100 out are $0.006,
# the worst case of 1,000 in (as cache writes, 5 per million) and 200 out is $0.009.
USAGE = Usage(input_tokens=1000, output_tokens=100)
COST_USD = 0.006
WORST_CASE_TOKENS = (1000, 200)
WORST_CASE_USD = 0.009


def ask(text: str, *, draw: int = 0, max_tokens: int = 200) -> ChatRequest:
    return ChatRequest(
        (TextPart(text),),
        max_tokens=max_tokens,
        draw=draw,
        step="filter",
        question_id=f"q-{text}",
    )


def reply(text: str = "fine", stop: StopReason = StopReason.END, request_id: str = "r") -> Reply:
    return Reply(text, stop, USAGE, model="claude-opus-5-5", request_id=request_id)


Answer = Reply | CallError
Answerer = Callable[[ChatRequest], Awaitable[Answer]]


class ScriptedBackend(Backend):
    """Answers with `script` in turn, then with "fine". `answer` replaces that by a function."""

    def __init__(self, *script: Answer, answer: Answerer | None = None) -> None:
        self.info = BackendInfo("scripted", "claude", "claude-opus-5-5", "http://here")
        self.script = list(script)
        self._answer = answer
        self.requests: list[ChatRequest] = []
        self.in_flight = 0
        self.peak = 0

    async def complete(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await asyncio.sleep(0)
            answer = await self._answer(request) if self._answer else self._next()
        finally:
            self.in_flight -= 1
        if isinstance(answer, CallError):
            raise answer
        return answer

    def _next(self) -> Answer:
        return self.script.pop(0) if self.script else reply()

    async def count_tokens(self, request: ChatRequest) -> int | None:
        return None

    def worst_case_tokens(self, request: ChatRequest) -> tuple[int, int]:
        return WORST_CASE_TOKENS

    async def aclose(self) -> None:
        pass


class ScriptedBatchServer(ScriptedBackend):
    """Keeps batches like a server. `outcomes` answers a text in turn; batches end by `end`.

    `submit_errors` are raised in turn by submissions: (error, whether the batch came to be),
    `look_errors` by all that reads. `left_out` says how often a text's result is left out,
    `renamed` gives all results under other ids.
    """

    max_batch_requests = 100
    max_batch_bytes = 10_000

    def __init__(self) -> None:
        super().__init__()
        self.batches: dict[str, tuple[BatchInfo, list[tuple[str, ChatRequest]]]] = {}
        self.ended: set[str] = set()
        self.ends_at_once = True
        self.outcomes: dict[str, list[Answer]] = {}
        self.submit_errors: list[tuple[CallError | None, bool]] = []
        self.before_submit: Callable[[], None] = lambda: None
        self.max_requests_taken: int | None = None
        self.num_looks = 0
        self.look_errors: list[CallError | None] = []
        self.left_out: dict[str, int] = {}
        self.renamed = False

    def request_bytes(self, request: ChatRequest) -> int:
        return len(request.text)

    async def submit(self, requests: list[tuple[str, ChatRequest]]) -> BatchInfo:
        await asyncio.sleep(0)
        self.before_submit()
        error, comes_to_be = self.submit_errors.pop(0) if self.submit_errors else (None, True)
        info = BatchInfo(f"batch-{len(self.batches)}", 4.0e9, False, len(requests))
        if comes_to_be:
            self.batches[info.batch_id] = (info, list(requests))
        if error is not None:
            raise error
        return info

    def end(self, batch_id: str) -> None:
        self.ended.add(batch_id)

    def _info(self, batch_id: str) -> BatchInfo:
        info, requests = self.batches[batch_id]
        is_ended = self.ends_at_once or batch_id in self.ended
        return BatchInfo(batch_id, info.created_at, is_ended, len(requests))

    async def retrieve(self, batch_id: str) -> BatchInfo:
        await self._look()
        self.num_looks += 1
        return self._info(batch_id)

    async def _look(self) -> None:
        await asyncio.sleep(0)
        if self.look_errors and (error := self.look_errors.pop(0)) is not None:
            raise error

    async def results(self, batch_id: str) -> list[BatchResult]:
        """In reverse order, as no order is promised."""
        await self._look()
        return [
            BatchResult(f"not-{custom_id}" if self.renamed else custom_id, self._outcome(request))
            for custom_id, request in reversed(self.batches[batch_id][1])
            if not self._leaves_out(request.text)
        ]

    def _leaves_out(self, text: str) -> bool:
        self.left_out[text] = self.left_out.get(text, 0) - 1
        return self.left_out[text] >= 0

    def _outcome(self, request: ChatRequest) -> Answer:
        turn = self.outcomes.get(request.text)
        if turn:
            return turn.pop(0) if len(turn) > 1 else turn[0]
        return reply(f"re: {request.text}", request_id=f"m-{request.text}")

    async def list_batches(self, created_after: float) -> list[BatchInfo]:
        await self._look()
        return [
            self._info(batch_id)
            for batch_id, (info, _) in self.batches.items()
            if info.created_at >= created_after
        ]

    @property
    def submitted_texts(self) -> list[list[str]]:
        return [[request.text for _, request in batch] for _, batch in self.batches.values()]


def open_ledger(folder: Path) -> Ledger:
    return Ledger.open(folder / "cot.duckdb", start_run("test", {}))


def live(
    backend: Backend,
    ledger: Ledger,
    *,
    limits: CallLimits = FAST,
    budget: Budget | None = None,
) -> Calls:
    return Calls(
        backend,
        ledger,
        limits=limits,
        prices=Prices.load(),
        budget=budget or Budget(None),
        run_id=ledger.run_id,
    )


def rows(ledger: Ledger, columns: str) -> list[tuple[object, ...]]:
    """Columns of `calls` in the order of writing."""
    return ledger.query(f"SELECT {columns} FROM calls ORDER BY rowid")
