"""The options of `judges.audit run`; the string under each is its help."""

from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from judges.audits.records import CONSISTENCY, VARIANTS
from schemas.config import Config


class RunConfig(Config):
    """Options of `judges.audit run`."""

    audit: Path
    """Folder of the audit, as `sample` made it."""
    judge: Annotated[tuple[str, ...], Field(min_length=1)]
    """Judges to ask: claude:MODEL, openai:MODEL@URL, local:PATH, oracle:SEED; in think-answer
    audits also rule, the extractor that needs no model."""
    variants: tuple[str, ...] = ()
    """Prompts to ask with: sufficiency (the builder's, the default), sufficiency-short (fewer
    words), commit-first (the judge answers before it sees the correct answer); think-answer, the
    only one in audits of that kind."""
    repeats: int = Field(1, ge=1)
    """How often each row is asked with each prompt: equal replies or not is the judge's
    stability."""
    permutations: int = Field(0, ge=0)
    """Further times, with options in another order (1st, 3rd, ...) or under other letters
    (2nd, 4th, ...)."""
    probes: bool = False
    """Also ask about observations that support nothing: how many does the judge let through?"""
    seed: int = 0
    """Decides permutations and probe texts."""
    limit: int | None = Field(None, ge=1)
    """Only the first rows of the audit, in their blind order."""
    max_cost_usd: float | None = Field(None, ge=0)
    """Stop before the calls of this audit, earlier runs included, cost more."""
    prices: Path | None = None
    """TOML file of prices that adds to or replaces the built-in table."""
    concurrency: int = Field(16, ge=1)
    """Calls in flight at once, per judge."""
    max_tokens: int = Field(512, ge=1)
    """Longest reply of a judge."""
    retries: int = Field(2, ge=0)
    """How often an unscored reply is asked again before it counts as unscored."""
    temperature: float | None = Field(None, ge=0)
    """Sampling temperature, for judges that take one: repeats of a model that always says the
    same tell nothing."""
    retry_failed: bool = False
    """Ask calls again that failed for good in an earlier run."""
    api_key_env: str | None = None
    """Environment variable that holds the key of openai: endpoints other than OpenAI's own."""
    timeout_seconds: float = Field(600.0, gt=0)
    """Time that one call may take."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Limit of the account, per judge."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Limit of the account, per judge."""
    local_batch_size: int = Field(8, ge=1)
    """Rows that a local: judge reads together."""
    device: str | None = None
    """Device of local: judges, in torch's words, for example cuda:1."""
    media_root: Path | None = None
    """Folder of the media for oracle: judges, where it is not the one that `sample` stored."""

    @field_validator("variants")
    @classmethod
    def _known(cls, variants: tuple[str, ...]) -> tuple[str, ...]:
        for name in variants:
            if name not in (*VARIANTS, CONSISTENCY):
                known = ", ".join((*VARIANTS, CONSISTENCY))
                raise ValueError(f"no prompt {name!r}: expected some of {known}")
        return tuple(dict.fromkeys(variants))

    @model_validator(mode="after")
    def _each_judge_once(self) -> "RunConfig":
        twice = [spec for spec, count in Counter(self.judge).items() if count > 1]
        if twice:
            raise ValueError(
                f"--judge {twice[0]} is given twice; --repeats asks the same judge again"
            )
        return self
