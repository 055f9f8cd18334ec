"""Functions that own_questions.yaml names."""

import re
from pathlib import Path
from typing import Any

_LETTER = re.compile(r"\s*\(?([A-J])\b")


def media_of(doc: dict[str, Any]) -> list[str]:
    """The file of a question, by its absolute path."""
    return [str(Path(doc["path"]).resolve())]


def text_of(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, str] | None = None) -> str:
    """Question, options, and how to answer (nothing, for models with a template of their own)."""
    how = (lmms_eval_specific_kwargs or {}).get("post_prompt", "")
    return "\n".join([doc["problem"], *doc["options"], how]).strip()


def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the reply begins with the correct letter."""
    given = _LETTER.match(results[0])
    return {"accuracy": float(given is not None and given[1] == doc["solution"])}
