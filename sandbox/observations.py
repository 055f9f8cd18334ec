"""`python -m sandbox.observations PREDICTIONS --media-root WORLD`: did it see, did it conclude?

In the sandbox it is known what there was to see, so the answers of `train.evaluate` are taken
apart: how often the observation tells exactly what the clip shows, and how often the answer is
right when it does and when it does not. Beside each accuracy stands the blind level of the very
questions asked: what the best constant guess per kind of question scores.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sandbox.blind import BlindTally
from sandbox.facts import Fact, compare_observation, facts_of
from sandbox.questions import parse_query
from sandbox.world import Clip, WorldConfig
from schemas.config import EXIT_OK, Config, UsageError, parse_command, run_command
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES, TraceError, parse_trace

if TYPE_CHECKING:
    from train.evaluation.predictions import Prediction

PROG = "sandbox.observations"
_ATTRIBUTES = ("time", "colour", "shape", "place")


class ObservationsConfig(Config):
    """Options of `sandbox.observations`."""

    predictions: Path
    """predictions.parquet that train.evaluate wrote about questions of the sandbox."""
    media_root: Path
    """Folder of the rendered world that the questions are about."""
    template: str = "p2r"
    """Trace template that the answers follow: p2r, think-answer or grounding."""
    output_file: Path | None = None
    """JSON file for the measures; they are printed anyway."""


@dataclass(frozen=True)
class Judged:
    """One answer, compared with the truth.

    `is_seen` says that the observation states exactly what the clip shows, `share` how many of the
    attributes it gets right, `by_attribute` (right, in the truth) of each. A broken trace has no
    observation. The clip is the one that was shown, also where that is another one as a control.
    """

    question: VideoQuestion
    kind: str
    video: str
    is_well_formed: bool
    is_right: bool
    is_seen: bool
    share: float
    by_attribute: dict[str, tuple[int, int]]


class Measures(NamedTuple):
    """Shares over a set of answers; None where there is nothing to take a share of."""

    answers: int
    right: float
    blind: float
    adherence: float
    seen: float
    attributes: float
    right_if_seen: float | None
    right_if_not_seen: float | None


class World:
    """The truth of a rendered world."""

    def __init__(self, root: Path) -> None:
        try:
            world = json.loads((root / "world.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{root} holds no world of the sandbox ({error}); render one with python -m"
                " sandbox.clips and give its folder as --media-root"
            ) from None
        self.config = WorldConfig.from_json(world["world"])
        self._root = root
        self.facts = lru_cache(maxsize=65_536)(self._facts)

    def clip(self, path: str) -> Clip:
        """What happens in the clip at `path`, relative to the world's folder."""
        file = self._root / "truth" / f"{Path(path).stem}.json"
        try:
            return Clip.from_json(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"there is no truth about {path} in {file} ({error}): give the world that was"
                " evaluated as --media-root"
            ) from None

    def _facts(self, path: str) -> tuple[Fact, ...]:
        return facts_of(self.clip(path), self.config)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare each answer with the truth, print the measures, write them where asked."""
    config = parse_command(
        ObservationsConfig,
        argv,
        prog=PROG,
        description="Take answers about the sandbox apart: seen right, and concluded right.",
        aliases={"output_file": ("--out",)},
        positional=("predictions",),
    )
    if config.template not in TEMPLATES:
        raise UsageError(f"--template {config.template}: expected one of {', '.join(TEMPLATES)}")
    judged = judge_file(config.predictions, World(config.media_root), config.template)
    print("\n".join(table(judged)))
    if config.output_file is not None:
        config.output_file.parent.mkdir(parents=True, exist_ok=True)
        config.output_file.write_text(json.dumps(to_json(judged), indent=2) + "\n", "utf-8")
    return EXIT_OK


def judge_file(path: Path, world: World, template_name: str = "p2r") -> list[Judged]:
    """The answers of a predictions file, each compared with the truth."""
    from train.evaluation.predictions_file import read_predictions

    try:
        found = read_predictions(path)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    return [judge(prediction, world, template_name) for prediction in found.predictions]


def judge(prediction: "Prediction", world: World, template_name: str = "p2r") -> Judged:
    """Compare one answer with the truth of the clip that was shown."""
    from judges.answers import score_answer

    question = prediction.question
    query = parse_query(question.problem)
    if query is None:
        raise UsageError(f"{question.problem!r} is no question of the sandbox")
    path = (*prediction.shown, question.media[0].path)[0]
    template = TEMPLATES[template_name]
    try:
        trace = parse_trace(prediction.output, template)
    except TraceError:
        seen = compare_observation("", world.facts(path))
        return Judged(question, query.kind, path, False, False, False, 0.0, seen.by_attribute)
    text = trace.get("observation" if template_name == "p2r" else "think")
    seen = compare_observation(text, world.facts(path))
    is_right = score_answer(question, trace.get("answer")) == 1.0
    return Judged(
        question, query.kind, path, True, is_right, seen.is_all_right, seen.share, seen.by_attribute
    )


def measure(judged: Sequence[Judged]) -> Measures:
    """The shares over all of `judged`."""
    tally = BlindTally()
    for each in judged:
        tally.add(each.kind, each.question.problem, each.question)
    seen = [each for each in judged if each.is_seen]
    unseen = [each for each in judged if not each.is_seen]
    return Measures(
        answers=len(judged),
        right=_mean(each.is_right for each in judged) or 0.0,
        blind=tally.level().overall,
        adherence=_mean(each.is_well_formed for each in judged) or 0.0,
        seen=_mean(each.is_seen for each in judged) or 0.0,
        attributes=_mean(each.share for each in judged) or 0.0,
        right_if_seen=_mean(each.is_right for each in seen),
        right_if_not_seen=_mean(each.is_right for each in unseen),
    )


def by_kind(judged: Sequence[Judged]) -> dict[str, Measures]:
    """`measure` for each kind of question."""
    kinds = sorted({each.kind for each in judged})
    return {kind: measure([each for each in judged if each.kind == kind]) for kind in kinds}


def by_attribute(judged: Sequence[Judged]) -> dict[str, float]:
    """Share of right times, colours, ... among those in the truth."""
    shares = {}
    for name in _ATTRIBUTES:
        pairs = [each.by_attribute.get(name, (0, 0)) for each in judged]
        total = sum(count for _, count in pairs)
        if total:
            shares[name] = sum(right for right, _ in pairs) / total
    return shares


def to_json(judged: Sequence[Judged]) -> dict[str, Any]:
    """All measures as plain JSON."""
    return {
        "overall": measure(judged)._asdict(),
        "by_kind": {kind: found._asdict() for kind, found in by_kind(judged).items()},
        "by_attribute": by_attribute(judged),
    }


def table(judged: Sequence[Judged]) -> list[str]:
    """The measures as lines of text, in per cent."""
    lines = [
        f"{'':10} {'answers':>7} {'right':>6} {'blind':>6} {'format':>6} {'seen':>6} {'attrib.':>7}"
        f" {'right if seen':>13} {'if not':>6}"
    ]
    for name, found in (("all", measure(judged)), *by_kind(judged).items()):
        shares = (found.right, found.blind, found.adherence, found.seen)
        lines.append(
            f"{name:10} {found.answers:7} "
            + " ".join(f"{percent(share):>6}" for share in shares)
            + f" {percent(found.attributes):>7} {percent(found.right_if_seen):>13}"
            + f" {percent(found.right_if_not_seen):>6}"
        )
    told = ", ".join(f"{name} {percent(share)}" for name, share in by_attribute(judged).items())
    return [*lines, f"attributes told right: {told}"]


def percent(share: float | None) -> str:
    """`72.5`, or a dash for nothing."""
    return "-" if share is None else f"{100 * share:.1f}"


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None


if __name__ == "__main__":
    run_command(PROG, main)
