"""How the judge of a training run is asked, and counters of what it was asked."""

from dataclasses import dataclass, fields
from pathlib import Path

from schemas.config import UsageError

_VARIANTS = ("sufficiency", "sufficiency-short")


@dataclass(frozen=True)
class JudgeOptions:
    """How the judge is asked, and what that may cost."""

    variant: str = "sufficiency"
    """Prompt: judges/prompts/<variant>.md."""
    max_tokens: int = 512
    """Longest reply, in tokens."""
    retries: int = 2
    """So often an unscored reply is asked for again."""
    temperature: float | None = None
    """Sent only where given; many models take none."""
    concurrency: int = 64
    """Calls in flight at most: all rollouts of a step, so that none waits for another."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    retry_base_seconds: float = 0.5
    retry_cap_seconds: float = 60.0
    """Waits before a call is tried again double from the base to the cap."""
    timeout_seconds: float = 120.0
    """Time that one attempt may take."""
    max_cost_usd: float | None = None
    """What the judge may cost in this process, earlier runs of its ledger included."""
    prices: Path | None = None
    """File with prices that replace or add to the built-in ones."""
    api_key_env: str | None = None
    """Environment variable with the key for an OpenAI-compatible server."""
    local_batch_size: int = 8
    """Calls that a judge in this process answers at once."""
    device: str | None = None
    """Where a judge in this process runs (`cuda:1`); None picks CUDA where there is one."""

    def __post_init__(self) -> None:
        if self.variant not in _VARIANTS:
            raise UsageError(
                f"no judge prompt {self.variant!r} for training: expected one of"
                f" {', '.join(_VARIANTS)}"
            )


@dataclass(frozen=True)
class JudgeStats:
    """What this process has asked since it started. Subtract two to get what lies between them."""

    calls: int = 0
    """Calls that went to the judge and ended."""
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
