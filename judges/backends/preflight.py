"""Does a model's server answer? One short call, within seconds, before anything is claimed or paid.

A wrong key, model or URL, a dead server and an empty account fail every call alike, and are for the
user to mend. A server that is only busy is none of these: the run itself has the patience to wait.
"""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from judges.backends.base import ChatRequest, Reply, TextPart
from judges.backends.budget import BudgetExhausted, StopRequested
from judges.backends.calls import CallLimits, Calls
from schemas.samples import Reason

if TYPE_CHECKING:
    from schemas.ledger.ledger import Ledger
    from schemas.ledger.rows import CallRow

NO_REPLY = frozenset({Reason.CALL_FAILED, Reason.BAD_REQUEST})
"""Failures of the judge's server, not of what the judge said."""

CHECK_TEXT = "Reply with the one word Yes."

# A model that thinks before it speaks can use up the check's few tokens. Some servers say so with
# a status of 400: they have answered.
_TOKENS_USED_UP = ("max_tokens", "output limit was reached")


class HeldCalls:
    """Calls that are made before there is a ledger, for the ledger that is opened then.

    `specs` names the backends that were answered.
    """

    def __init__(self) -> None:
        self.rows: list[CallRow] = []
        self.specs: set[str] = set()

    def cached_reply(self, call_key: str) -> None:
        """Nothing is known of earlier calls."""
        return

    def add_call(self, row: "CallRow") -> None:
        """Keep a row."""
        self.rows.append(row)

    def move_to(self, ledger: "Ledger") -> None:
        """Hand all rows over, as calls of the ledger's run."""
        for row in self.rows:
            ledger.add_call(replace(row, run_id=ledger.run_id))
        self.rows.clear()


def quick_limits(limits: CallLimits) -> CallLimits:
    """Limits of the check: it gives up on a dead server within seconds."""
    return replace(
        limits,
        max_attempts=4,
        max_bad_replies=1,
        retry_cap_seconds=2.0,
        retry_after_max_seconds=5.0,
    )


async def problem_of(calls: Calls, draw: int, seconds: float) -> str:
    """Why every call would fail alike, in one sentence; "" where one was answered.

    `draw` must differ in every run: a reply that an earlier run stored says nothing about today.
    `calls` has `quick_limits`; a server that takes longer than `seconds` does not answer. Raises
    BudgetExhausted.
    """
    request = ChatRequest((TextPart(CHECK_TEXT),), max_tokens=16, step="check", draw=draw)
    try:
        async with asyncio.timeout(seconds):
            outcome = (await calls.call(request)).outcome
    except TimeoutError:
        return f"no reply within {seconds:g} s"
    except BudgetExhausted:
        raise
    except StopRequested as stop:
        return str(stop)
    if isinstance(outcome, Reply) or outcome.reason not in NO_REPLY:
        return ""
    is_busy = calls.stats.rate_limited == calls.stats.attempts
    has_answered = all(words in outcome.detail for words in _TOKENS_USED_UP)
    return "" if is_busy or has_answered else outcome.detail


def silent(spec: str, problem: str, option: str = "") -> str:
    """One sentence on a backend with a problem; `option` is the command's option that named it."""
    return f"{option} {spec} does not answer: {problem.rstrip('.')}".lstrip()
