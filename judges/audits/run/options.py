"""The options of `judges.audit run`; the string under each is its help."""

from collections import Counter
from pathlib import Path

from pydantic import Field, field_validator

from cli.option_groups import (
    AuditOptions,
    BackendOptions,
    JudgeOptions,
    JudgeReplyOptions,
    LimitOptions,
    MediaRootOptions,
    PluginOptions,
    ReaderSamplesOptions,
    RetryFailedOptions,
    SeedOptions,
    SufficiencyMarginOptions,
)
from judges.audits.records import CONSISTENCY, EXTRACTION, VARIANTS

_ALL_VARIANTS = (*VARIANTS, CONSISTENCY, EXTRACTION)


class RunConfig(
    AuditOptions,
    JudgeOptions[tuple[str, ...]],
    JudgeReplyOptions,
    BackendOptions,
    MediaRootOptions[Path | None],
    LimitOptions,
    SeedOptions,
    ReaderSamplesOptions,
    SufficiencyMarginOptions,
    RetryFailedOptions,
    PluginOptions,
    defaults={"media_root": None, "timeout_seconds": 600.0},
    renamed={"max_tokens": "judge_max_tokens", "temperature": "judge_temperature"},
    notes={
        "judge": "One or more; in think-answer audits also rule, the extractor without a model.",
        "judge_temperature": "At 0 repeats give equal replies and say nothing about stability.",
        "limit": "They are the first in the blind order.",
        "media_root": "Only oracle: judges need it, by default the one that `sample` stored.",
        "seed": "Permutations and probe texts follow from it.",
    },
    group="judge",
    example="out/audit --judge claude:claude-haiku-5-5 --repeats 2 --probes",
):
    """Options of `judges.audit run`."""

    variants: tuple[str, ...] = ()
    """Prompts to use: sufficiency (the builder's, the default), sufficiency-short (fewer words),
    commit-first (the judge answers before it sees the correct answer), answer (no verdict: it
    answers --blind-samples times from the observation and without it); think-answer and
    extract-answer, the only ones in audits of these kinds."""
    repeats: int = Field(1, ge=1)
    """Requests per row and prompt: whether their replies agree is the judge's stability."""
    permutations: int = Field(0, ge=0)
    """Further requests, with options in another order (1st, 3rd, ...) or under other letters
    (2nd, 4th, ...)."""
    probes: bool = False
    """Also send observations that support nothing: how many does the judge let through?"""

    @field_validator("judge")
    @classmethod
    def _each_judge_once(cls, specs: tuple[str, ...]) -> tuple[str, ...]:
        if not specs:
            raise ValueError("give at least one judge, for example claude:claude-haiku-5-5")
        twice = [spec for spec, count in Counter(specs).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} is given twice; --repeats asks the same judge again")
        return specs

    @field_validator("variants")
    @classmethod
    def _known(cls, variants: tuple[str, ...]) -> tuple[str, ...]:
        for name in variants:
            if name not in _ALL_VARIANTS:
                known = ", ".join(_ALL_VARIANTS)
                raise ValueError(f"no prompt {name!r}: expected some of {known}")
        return tuple(dict.fromkeys(variants))
