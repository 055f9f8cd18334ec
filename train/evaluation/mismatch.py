"""Think-answer mismatch: how often the answer is not what the reasoning concludes.

VideoP2R (arXiv 2511.11113, section 12, table 6): multiple choice only, a language model reads the
letter from the reasoning alone, mismatch is another letter in the answer.
"""

from collections.abc import Sequence
from typing import Any

from train.evaluation.scoring import Scored
from train.evaluation.slices import interval

# Table 6, MMVU, in per cent: what one may compare with. Its extractor is Claude 3.7.
PUBLISHED_MMVU = {"VideoChat-R1": 11.9, "Qwen2.5-VL-7B": 3.5, "VideoP2R 7B": 7.9}


def mismatch_of(scored: Sequence[Scored], extractor: str) -> dict[str, Any] | None:
    """The share of mismatches among replies whose reasoning and answer both name an option.

    Reasonings without a conclusion (`No` in the paper) are left out and their share told, with what
    the mismatch would be if each of them counted as one. None without multiple choice reasonings.
    """
    reasoned = [one for one in scored if one.reasoning]
    if not reasoned:
        return None
    answered = [one for one in reasoned if one.tolerant.is_parsed]
    compared = [one for one in answered if one.is_mismatch is not None]
    silent = len(answered) - len(compared)
    found: dict[str, Any] = {
        "extractor": extractor,
        "reasonings": len(reasoned),
        "without_answer": len(reasoned) - len(answered),
        "without_conclusion": silent,
        "share_without_conclusion": silent / len(answered) if answered else None,
        "compared": len(compared),
        "mismatches": sum(one.is_mismatch is True for one in compared),
        "published_mmvu_percent": PUBLISHED_MMVU,
    }
    if compared:
        found["mismatch"] = interval(compared, [one.is_mismatch is True for one in compared])
    if answered:
        found["no_conclusion_counted_as_mismatch"] = interval(
            answered, [one.is_mismatch is not False for one in answered]
        )
    return found
