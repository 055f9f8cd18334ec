"""A judge's verdicts of an earlier day, stored for `judges.audit gate` to compare with."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.config import UsageError

if TYPE_CHECKING:
    from judges.audits.views import JudgeView


class Baseline(BaseModel):
    """A judge's verdicts by row. `media`-free and label-free: it can live in a repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["p2r-judge-baseline-1"] = "p2r-judge-baseline-1"
    judge: str
    variant: str
    prompt_ids: tuple[str, ...]
    verdicts: dict[str, Literal["yes", "no", "unscored"]] = Field(min_length=1)


def baseline_of(view: "JudgeView") -> Baseline:
    """The verdicts of a judge, to be stored."""
    return Baseline(
        judge=view.judge,
        variant=view.variant,
        prompt_ids=tuple(sorted(view.prompt_ids)),
        verdicts={one.item_id: one.verdict for one in view.verdicts if one is not None},
    )


def read_baseline(path: Path) -> Baseline:
    """A stored baseline. Raises UsageError."""
    try:
        return Baseline.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"--baseline {path} cannot be read ({error.strerror}); store one first with "
            "--write-baseline"
        ) from None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise UsageError(
            f"--baseline {path} is no baseline of judges.audit gate ({place}: {problem['msg']}); "
            "store one with --write-baseline"
        ) from None


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Store it, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(baseline.model_dump(mode="json"), indent=1, sort_keys=True)
    temporary.write_text(f"{text}\n", encoding="utf-8")
    temporary.replace(path)
