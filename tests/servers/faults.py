"""What goes wrong, decided by seed and content so that the order of requests never matters.

Each attempt of a body draws once from `rates`; kinds named in `final` draw by content alone, so
that every attempt of such a body ends the same way. Where a script entry matches it comes first.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

# Kinds that answer in place of the model.
STATUS_FAULTS: dict[str, tuple[int, str, str]] = {
    "rate_limit": (429, "rate_limit_error", "This request would exceed your rate limit."),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "server_error": (500, "api_error", "Internal server error"),
    "unavailable": (503, "api_error", "Service unavailable"),
    "bad_request": (400, "invalid_request_error", "This request was refused by script."),
    "unauthorized": (401, "authentication_error", "invalid x-api-key"),
    "forbidden": (403, "permission_error", "Your key may not use this model."),
}
CONNECTION_FAULTS = ("drop", "drop_middle", "malformed", "hang", "trickle", "huge", "redirect")
# Kinds that change the model's reply, which is billed.
REPLY_FAULTS = ("empty", "truncated", "refused")
# Kinds that only requests inside a batch can meet.
BATCH_FAULTS = ("errored", "invalid", "expired", "canceled", "line", "no_line")
KINDS = ("ok", *STATUS_FAULTS, *CONNECTION_FAULTS, *REPLY_FAULTS, *BATCH_FAULTS)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. In `message`, `{key}` stands for the caller's key;
    for `malformed` it is the whole body, for `line` a line of a batch's results, in which
    `{custom_id}` stands for the request's. `trickle` sends a byte every `seconds` without end,
    `huge` a body of `num_bytes` with the status `status`, `redirect` (307, or `status`) leads to
    the URL in `message`."""

    kind: str = "ok"
    message: str | None = None
    status: int | None = None
    retry_after: str | None = None
    retry_after_ms: str | None = None
    seconds: float = 3600.0
    num_bytes: int = 0

    @classmethod
    def parse(cls, value: str | dict[str, Any]) -> "Fault":
        """From a script: a kind, or an object with these fields."""
        fault = cls(kind=value) if isinstance(value, str) else cls(**value)
        if fault.kind not in KINDS:
            raise ValueError(f"unknown fault {fault.kind!r}: expected one of {', '.join(KINDS)}")
        return fault


@dataclass
class ScriptEntry:
    """Faults given in turn to requests whose path ends with `path` and whose text has `match`."""

    faults: list[Fault]
    match: str = ""
    path: str = ""


@dataclass
class FaultPlan:
    """Rates and scripts in force. `retry_after` goes with each 429 and 529 that rates drew."""

    seed: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    final: frozenset[str] = frozenset({"refused"})
    retry_after: str | None = "0"
    script: list[ScriptEntry] = field(default_factory=list)

    def set_rates(self, rates: dict[str, float]) -> None:
        """Take new probabilities; an unknown kind is an error."""
        if unknown := set(rates) - set(KINDS):
            raise ValueError(f"unknown faults {sorted(unknown)}: expected {', '.join(KINDS)}")
        self.rates = dict(rates)

    def set_script(self, entries: list[dict[str, Any]]) -> None:
        """Take a new script."""
        self.script = [
            ScriptEntry(
                [Fault.parse(fault) for fault in entry["faults"]],
                entry.get("match", ""),
                entry.get("path", ""),
            )
            for entry in entries
        ]

    def scripted(self, path: str, text: str, *, is_completion: bool) -> Fault | None:
        """The next fault of the first script entry that matches, if any."""
        for entry in self.script:
            reaches = path.endswith(entry.path) if entry.path else is_completion
            if entry.faults and reaches and entry.match in text:
                return entry.faults.pop(0)
        return None

    def drawn(self, body_hash: str, attempt: int, *, in_batch: bool = False) -> Fault:
        """The fault of this attempt of this body, by probability."""
        for key, is_final in ((f"{body_hash}:final", True), (f"{body_hash}:{attempt}", False)):
            point = _uniform(f"{self.seed}:{key}")
            for kind, rate in sorted(self.rates.items()):
                applies = (
                    kind in (BATCH_FAULTS + REPLY_FAULTS)
                    if in_batch
                    else (kind not in BATCH_FAULTS)
                )
                if not applies or (kind in self.final) != is_final:
                    continue
                if point < rate:
                    waits = kind in ("rate_limit", "overloaded")
                    return Fault(kind, retry_after=self.retry_after if waits else None)
                point -= rate
        return Fault()


def _uniform(key: str) -> float:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big") / 2**56
