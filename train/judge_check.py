"""Does the judge's server answer? Asked once, within seconds, before a model is loaded."""

from dataclasses import replace

from judges.backends.base import (
    AccessError,
    Backend,
    CallError,
    ChatRequest,
    Reply,
    TextPart,
)
from judges.backends.budget import BudgetExhausted, StopRequested
from judges.backends.calls import CallLimits, Calls
from schemas.config import UsageError
from schemas.samples import Reason

NO_REPLY = frozenset({Reason.CALL_FAILED, Reason.BAD_REQUEST})
"""Failures of the judge's server, not of what the judge said."""


def quick_limits(limits: CallLimits) -> CallLimits:
    """A check's limits: a dead server is known to be dead within seconds."""
    return replace(
        limits,
        max_attempts=3,
        max_bad_replies=1,
        retry_cap_seconds=2.0,
        retry_after_max_seconds=5.0,
    )


async def check_judge(backend: Backend, calls: Calls, draw: int) -> None:
    """Raise UsageError where no reply comes: by a free token count, else by one short call.

    `draw` must be another one in every run: an earlier run's reply says nothing of today.
    """
    request = ChatRequest(
        parts=(TextPart("Reply with the one word Yes."),), max_tokens=16, step="check", draw=draw
    )
    spec = backend.info.spec
    try:
        if await backend.count_tokens(request) is not None:
            return
    except AccessError as error:
        raise _unreachable(spec, str(error)) from None
    except CallError:
        pass  # a server without that call, or a hiccup: the call below decides
    try:
        outcome = (await calls.call(request)).outcome
    except BudgetExhausted as error:
        raise UsageError(str(error)) from None
    except StopRequested as stop:
        raise _unreachable(spec, str(stop)) from None
    if not isinstance(outcome, Reply) and outcome.reason in NO_REPLY:
        raise _unreachable(spec, outcome.detail)


def _unreachable(spec: str, words: str) -> UsageError:
    return UsageError(
        f"--judge {spec} cannot be reached: {words.rstrip('.')}; start its server, or give another"
        " judge"
    )
