"""What a call layer writes to the ledger and reads from it, for live calls and batches alike."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from judges.backends.base import BackendInfo, ChatRequest, Reply, StopReason, Usage
from judges.backends.budget import Budget
from judges.backends.call_stats import CallStats
from judges.backends.prices import ModelPrice, Prices
from schemas.redaction import redact
from schemas.samples import Reason

if TYPE_CHECKING:
    from schemas.ledger import Ledger


@dataclass(frozen=True)
class CallFailure:
    """Why a call has no usable reply, for good. `detail` is one line, the server's words if any."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class CallResult:
    """A call's end. `from_cache`: this asking paid nothing, the reply was there or on its way."""

    call_key: str
    outcome: Reply | CallFailure
    from_cache: bool


_REASONS = {
    "empty": Reason.EMPTY_REPLY,
    "truncated": Reason.TRUNCATED,
    "refused": Reason.REFUSED,
    "failed": Reason.CALL_FAILED,
    "rejected": Reason.BAD_REQUEST,
}


RETRIED_STATUSES = frozenset({"empty", "truncated"})


def reply_status(reply: Reply) -> str:
    """`ok`, or why the reply is not to be used: `refused`, `truncated`, `empty`."""
    if reply.stop is StopReason.REFUSAL:
        return "refused"
    if reply.stop is StopReason.MAX_TOKENS:
        return "truncated"
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


def reply_detail(status: str, request_max_tokens: int, reply: Reply) -> str:
    """One line on a reply that is not to be used; empty for one that is."""
    if status == "ok":
        return ""
    if status == "refused":
        return one_line(reply.text) or "the model refused and gave no reason"
    if status == "truncated":
        return f"the reply was cut off at max_tokens = {request_max_tokens}"
    return "the reply holds no text"


def one_line(text: object, max_chars: int = 2000) -> str:
    """Other people's words as one line without keys, cut if very long."""
    line = redact(" ".join(str(text).split()))
    return line if len(line) <= max_chars else line[: max_chars - 3] + "..."


class CallRecorder:
    """Rows of `calls` for one backend: one per billed attempt and one for each final end.

    A failed attempt that may have been billed costs its worst case, and its error says so: the
    ledger never tells less than what was paid, and a resumed build cannot pass its budget.
    """

    def __init__(
        self,
        info: BackendInfo,
        ledger: "Ledger",
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
        if row.status == "ok":
            usage = Usage(
                row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens
            )
            outcome = Reply(
                row.reply, StopReason(row.stop_reason), usage, row.model, row.request_id
            )
        else:
            outcome = failure(row.status, row.error)
        return CallResult(key, outcome, from_cache=True)

    def worst_case_usd(self, tokens: tuple[int, int]) -> float:
        """What an attempt of at most these (input, output) tokens can cost; 0 without a price."""
        return self._price.worst_case(*tokens, self._is_batch) if self._price else 0.0

    def cost_usd(self, usage: Usage) -> float | None:
        """What an attempt cost, None without a price."""
        return self._price.cost(usage, self._is_batch) if self._price else None

    def add_reply(
        self,
        key: str,
        request: ChatRequest,
        attempt: int,
        reply: Reply,
        *,
        seconds: float,
        is_final: bool,
    ) -> None:
        """The row of an attempt that was answered."""
        status = reply_status(reply)
        cost = self.cost_usd(reply.usage)
        self._stats.count_usage(reply.usage, cost)
        self._ledger.add_call(
            self._row(key, request, attempt, status, is_final)
            | {
                "model": reply.model or self._info.model,
                "reply": reply.text,
                "stop_reason": reply.stop.value,
                "input_tokens": reply.usage.input_tokens,
                "output_tokens": reply.usage.output_tokens,
                "cache_read_tokens": reply.usage.cache_read_tokens,
                "cache_write_tokens": reply.usage.cache_write_tokens,
                "cost_usd": cost,
                "seconds": seconds,
                "request_id": reply.request_id,
                "error": reply_detail(status, request.max_tokens, reply) or None,
            }
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
            self._row(key, request, attempt, status, is_final)
            | {"cost_usd": cost, "seconds": seconds, "error": detail}
        )

    def _row(
        self, key: str, request: ChatRequest, attempt: int, status: str, is_final: bool
    ) -> dict[str, object]:
        return {
            "call_key": key,
            "attempt": attempt,
            "status": status,
            "is_final": is_final,
            "provider": self._info.provider,
            "model": self._info.model,
            "endpoint": self._info.endpoint,
            "step": request.step,
            "question_id": request.question_id,
            "reply": "",
            "stop_reason": "",
            "input_tokens": 0,
            "output_tokens": 0,
            "cache_read_tokens": 0,
            "cache_write_tokens": 0,
            "batch": self._is_batch,
            "request_id": "",
            "finished_at": datetime.now(UTC),
            "run_id": self._run_id,
        }


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
