"""What a call layer counts and keeps in the ledger, for live calls and batches alike."""

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from judges.backends.base import BackendInfo, ChatRequest, Reply, StopReason, Usage
from judges.backends.budget import Budget
from judges.backends.prices import ModelPrice, Prices
from schemas.ledger.rows import CallRow
from schemas.samples import Reason
from schemas.serialization import one_line, redact

if TYPE_CHECKING:
    from schemas.ledger.ledger import CachedCall

_WINDOW_SECONDS = 60
_OF_ONE_CALL = re.compile(
    r"\b(?:req|request|chatcmpl|cmpl|msg|trace)[_-][\w-]+"
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?|\b\d\d:\d\d:\d\d"  # moments
    r"|(?<=\d\d:\d\d)[.,]\d+|\b\d+[.,]?\d*\s?(?:ms|s|seconds?)\b|(?<=\.\d):\d{4,5}\b"
    r"|\b0x[0-9a-f]+|\b[0-9a-f-]{12,}[\w-]*|\b\d{6,}(?:\.\d+)?\b"
    r"|\b(?=[\w-]*\d)(?=[\w-]*[a-z])[\w-]{16,}",  # ids of gateways, of letters and digits
    re.I,
)
_UNRELIABLE = "the server's token counts cannot be: its worst case counts as spent"


class CallStore(Protocol):
    """Where calls are kept: a ledger, or memory until there is one."""

    def cached_reply(self, call_key: str) -> "CachedCall | None":
        """How a call ended before, if it has."""
        ...

    def add_call(self, row: CallRow) -> None:
        """Keep what one attempt gave and cost."""
        ...


@dataclass(frozen=True)
class CallFailure:
    """Why a call has no usable reply, for good. `detail` is one line, the server's words if any."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class CallResult:
    """How a call ended, and the key under which the ledger keeps it."""

    call_key: str
    outcome: Reply | CallFailure


_REASONS = {
    "empty": Reason.EMPTY_REPLY,
    "truncated": Reason.TRUNCATED,
    "refused": Reason.REFUSED,
    "failed": Reason.CALL_FAILED,
    "rejected": Reason.BAD_REQUEST,
}


RETRIED_STATUSES = frozenset({"empty", "truncated"})


def reply_status(reply: Reply) -> str:
    """`ok`, or why the reply is not to be used: `refused`, `truncated`, `rejected`, `empty`."""
    if reply.stop is StopReason.REFUSAL:
        return "refused"
    if reply.stop is StopReason.MAX_TOKENS:
        return "truncated"
    if reply.stop is StopReason.OTHER:
        return "rejected"
    return "ok" if reply.text.strip() else "empty"


def total_tokens(usage: Usage) -> int:
    """All tokens of an attempt."""
    return (
        usage.input_tokens
        + usage.output_tokens
        + usage.cache_read_tokens
        + usage.cache_write_tokens
    )


def failure(status: str, detail: str) -> CallFailure:
    """The failure that a call with this final status ends in."""
    return CallFailure(_REASONS[status], detail)


def failure_shape(detail: str) -> str:
    """A failure's words without what differs in each call: ids, moments and long numbers."""
    return _OF_ONE_CALL.sub("*", detail)


def reply_detail(status: str, request_max_tokens: int, reply: Reply) -> str:
    """One line on a reply that is not to be used; empty for one that is."""
    if status == "ok":
        return ""
    if status == "refused":
        return failure_line(reply.text) or "the model refused and gave no reason"
    if status == "truncated":
        return _where_cut_off(request_max_tokens, reply.usage)
    if status == "rejected":
        return failure_line(reply.note) or "the reply ended for a reason that is not known"
    return "the reply holds no text"


def _where_cut_off(max_tokens: int, usage: Usage) -> str:
    if not usage.is_reliable or not 0 < usage.output_tokens < max_tokens:
        return f"the reply was cut off at max_tokens = {max_tokens}"
    return (
        f"the reply was cut off after {usage.output_tokens:,} tokens, before max_tokens = "
        f"{max_tokens}: the model's context window, or a limit of its server, was reached; give "
        "fewer or smaller frames"
    )


def failure_line(text: object, max_chars: int = 2000) -> str:
    """Other people's words as one line without keys or control characters, cut if very long."""
    line = one_line(redact(" ".join(str(text).split())))
    return line if len(line) <= max_chars else line[: max_chars - 3] + "..."


@dataclass
class CallStats:
    """What one call layer has done in this process.

    `calls` are calls that ended in a reply or a failure, `cached` those answered from the ledger,
    `merged` those that shared an identical call in flight, `attempts` requests that were sent.
    `cost_usd` leaves out what has no known price (`is_cost_known`).
    """

    concurrency: int
    is_cost_known: bool = True
    calls: int = 0
    failures: int = 0
    cached: int = 0
    merged: int = 0
    attempts: int = 0
    retries: int = 0
    rate_limited: int = 0
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float = 0.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _started: float = field(init=False, repr=False)
    _ends: deque[list[int]] = field(default_factory=deque, repr=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def count_usage(self, usage: Usage, cost_usd: float | None) -> None:
        """Add what an attempt used and cost."""
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cache_read_tokens += usage.cache_read_tokens
        self.cache_write_tokens += usage.cache_write_tokens
        self.cost_usd += cost_usd or 0.0

    def count_end(self, *, is_failure: bool) -> None:
        """A call has ended."""
        self.calls += 1
        self.failures += is_failure
        second = int(self.clock())
        if self._ends and self._ends[-1][0] == second:
            self._ends[-1][1] += 1
        else:
            self._ends.append([second, 1])
            self._forget_old(second)

    @property
    def calls_per_minute(self) -> float:
        """Calls that ended in the last minute, or since the start if that was later, per minute."""
        now = self.clock()
        self._forget_old(int(now))
        span = min(float(_WINDOW_SECONDS), max(1.0, now - self._started))
        return sum(count for _, count in self._ends) * 60 / span

    def _forget_old(self, second: int) -> None:
        while self._ends and self._ends[0][0] <= second - _WINDOW_SECONDS:
            self._ends.popleft()

    def as_json(self) -> dict[str, Any]:
        """For `progress.json`; `cost_usd` is null where a price is not known."""
        return {
            "calls": self.calls,
            "failures": self.failures,
            "cached": self.cached,
            "merged": self.merged,
            "attempts": self.attempts,
            "retries": self.retries,
            "rate_limited": self.rate_limited,
            "in_flight": self.in_flight,
            "concurrency": self.concurrency,
            "calls_per_minute": round(self.calls_per_minute, 1),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "cost_usd": self.cost_usd if self.is_cost_known else None,
        }


class CallRecorder:
    """Rows of `calls` for one backend: one per billed attempt and one for each final end.

    A failed attempt that may have been billed costs its worst case, and its error says so: the
    ledger never tells less than what was paid, and a resumed build cannot pass its budget.
    """

    def __init__(
        self,
        info: BackendInfo,
        ledger: CallStore,
        *,
        prices: Prices,
        budget: Budget,
        run_id: str,
        stats: CallStats,
        is_batch: bool,
    ) -> None:
        self._info = info
        self._ledger = ledger
        self._run_id = run_id
        self._stats = stats
        self._is_batch = is_batch
        self._price = known_price(info, prices, budget)
        stats.is_cost_known = self._price is not None

    def cached(self, key: str) -> CallResult | None:
        """How this call ended before, if it has."""
        row = self._ledger.cached_reply(key)
        if row is None:
            return None
        outcome: Reply | CallFailure
        if row.is_ok:
            usage = Usage(
                row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens
            )
            outcome = Reply(
                row.reply, StopReason(row.stop_reason), usage, row.model, row.request_id
            )
        else:
            outcome = failure(row.status, row.error)
        return CallResult(key, outcome)

    def worst_case_usd(self, tokens: tuple[int, int]) -> float:
        """What an attempt of at most these (input, output) tokens can cost; 0 without a price."""
        return self._price.worst_case(*tokens, self._is_batch) if self._price else 0.0

    def cost_usd(self, usage: Usage, worst_case_usd: float) -> float | None:
        """What an attempt cost, None without a price; no less than `worst_case_usd` where the
        server's counts are not to be relied on."""
        if self._price is None:
            return None
        counted = self._price.cost(usage, self._is_batch)
        return counted if usage.is_reliable else max(counted, worst_case_usd)

    def add_reply(
        self,
        key: str,
        request: ChatRequest,
        attempt: int,
        reply: Reply,
        *,
        worst_case_usd: float,
        seconds: float,
        is_final: bool,
    ) -> None:
        """The row of an attempt that was answered."""
        status = reply_status(reply)
        detail = reply_detail(status, request.max_tokens, reply)
        if not reply.usage.is_reliable:
            detail = f"{detail} ({_UNRELIABLE})".lstrip()
        cost = self.cost_usd(reply.usage, worst_case_usd)
        self._stats.count_usage(reply.usage, cost)
        self._ledger.add_call(
            replace(
                self._row(key, request, attempt, status, is_final),
                model=reply.model or self._info.model,
                reply=reply.text,
                stop_reason=reply.stop.value,
                input_tokens=reply.usage.input_tokens,
                output_tokens=reply.usage.output_tokens,
                cache_read_tokens=reply.usage.cache_read_tokens,
                cache_write_tokens=reply.usage.cache_write_tokens,
                cost_usd=cost,
                seconds=seconds,
                request_id=reply.request_id,
                error=detail or None,
            )
        )

    def add_error(
        self,
        key: str,
        request: ChatRequest,
        attempt: int,
        status: str,
        detail: str,
        *,
        maybe_billed_usd: float | None = None,
        seconds: float,
        is_final: bool,
    ) -> None:
        """The row of an attempt without a reply; `maybe_billed_usd`: what it may have cost."""
        cost: float | None = 0.0
        if maybe_billed_usd is not None:
            cost = maybe_billed_usd if self._price else None
            self._stats.count_usage(Usage(), cost)
            detail += " (may have been billed: its worst case counts as spent)"
        self._ledger.add_call(
            replace(
                self._row(key, request, attempt, status, is_final),
                cost_usd=cost,
                seconds=seconds,
                error=detail,
            )
        )

    def _row(
        self, key: str, request: ChatRequest, attempt: int, status: str, is_final: bool
    ) -> CallRow:
        return CallRow(
            call_key=key,
            attempt=attempt,
            status=status,
            is_final=is_final,
            provider=self._info.provider,
            model=self._info.model,
            endpoint=self._info.endpoint,
            step=request.step,
            question_id=request.question_id,
            batch=self._is_batch,
            finished_at=datetime.now(UTC),
            run_id=self._run_id,
        )


def known_price(info: BackendInfo, prices: Prices, budget: Budget) -> ModelPrice | None:
    """The model's price; raises ValueError where it is not known and there is a budget."""
    price = prices.price(info.provider, info.model)
    if price is None and budget.limit_usd is not None:
        raise ValueError(
            f"a budget of ${budget.limit_usd:g} is given, but the price of model {info.model!r} at "
            f"provider {info.provider!r} is not known: give its price in a file with --prices, "
            "or leave out the budget"
        )
    return price
