"""Which option each reasoning concludes, read by a language model (VideoP2R's rule)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from judges.think_answer_llm import Consistency, judge_consistency
from schemas.verdicts import UnscoredReason
from train.evaluation.backend_calls import each, open_calls
from train.evaluation.options import EvaluateConfig
from train.evaluation.scoring import Scored


def extracted(
    scored: Sequence[Scored], config: EvaluateConfig, folder: Path
) -> tuple[tuple[Scored, ...], str]:
    """The same answers with the conclusions that --extractor reads, and who read them.

    A reply that cannot be read or a call that failed leaves its row without a conclusion, and is
    told beside the extractor's name. Raises UsageError, StopRequested.
    """
    found = asyncio.run(_extracted([one for one in scored if one.reasoning], config, folder))
    readings = iter(found)
    rows = tuple(one.concluding(next(readings).letter) if one.reasoning else one for one in scored)
    return rows, _named(config.extractor or "", found)


async def _extracted(
    reasoned: Sequence[Scored], config: EvaluateConfig, folder: Path
) -> list[Consistency]:
    assert config.extractor is not None
    async with open_calls(config.extractor, config, folder) as opened:

        async def read(one: Scored) -> Consistency:
            return await judge_consistency(
                opened.calls,
                one.prediction.question,
                one.reasoning,
                max_tokens=config.extractor_max_tokens,
            )

        return await each(reasoned, read, at_once=4 * config.concurrency)


def _named(spec: str, found: Sequence[Consistency]) -> str:
    unread = sum(
        one.letter is None and one.verdict.unscored_reason is not UnscoredReason.NO_CONCLUSION
        for one in found
    )
    name = f"{spec} {found[0].prompt_id}" if found else spec
    return f"{name}, {unread} of {len(found)} replies unread" if unread else name
