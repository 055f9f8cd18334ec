"""`python -m sandbox.observations PREDICTIONS --media-root WORLD`: was it seen, was it concluded?

The truth about a rendered world is known, so the answers of `train.evaluate` are taken apart: how
often the observation states exactly what the clip shows (*seen*) or all that its question hinges on
(*suffic.*), and how often the answer is right when all was seen and when not. Beside each accuracy
stands the best-constant baseline: the score of the best constant guess per kind of question, on the
same questions.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.config import EXIT_OK, parse_command, run_command
from cli.option_groups import MediaRootOptions, PredictionsOptions, TemplateOptions
from cli.output_folder import make_room_for
from sandbox.lessons.observation_measures import (
    JudgedAnswer,
    by_attribute,
    by_kind,
    judge_file,
    measure,
    percent,
)
from sandbox.option_groups import OUTPUT_FILE_ALIASES, OutputFileOptions
from sandbox.world.rendered import RenderedWorld
from train.early_checks import refuse_missing_file

PROG = "sandbox.observations"


class ObservationsConfig(
    PredictionsOptions[Path],
    MediaRootOptions[Path],
    TemplateOptions,
    OutputFileOptions[Path | None],
    defaults={"output_file": None},
    notes={
        "predictions": "Here: a predictions.parquet about questions of the sandbox.",
        "media_root": "Here: the folder of the rendered world.",
        "output_file": "The measures are printed anyway.",
    },
    example="out/scores/predictions.parquet --media-root world",
):
    """Options of `sandbox.observations`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare each answer with the truth, print the measures, write them where asked."""
    config = parse_command(
        ObservationsConfig,
        argv,
        prog=PROG,
        description="Take answers about the sandbox apart: seen right, and concluded right.",
        aliases=OUTPUT_FILE_ALIASES,
        positional=("predictions",),
    )
    refuse_missing_file(config.predictions, "PREDICTIONS", "a predictions.parquet")
    if config.output_file is not None:
        make_room_for(config.output_file)
    judged = judge_file(config.predictions, RenderedWorld(config.media_root), config.template)
    print("\n".join(table(judged)))
    if config.output_file is not None:
        config.output_file.write_text(json.dumps(to_json(judged), indent=2) + "\n", "utf-8")
    return EXIT_OK


def to_json(judged: Sequence[JudgedAnswer]) -> dict[str, Any]:
    """All measures as plain JSON."""
    return {
        "overall": measure(judged)._asdict(),
        "by_kind": {kind: found._asdict() for kind, found in by_kind(judged).items()},
        "by_attribute": by_attribute(judged),
    }


def table(judged: Sequence[JudgedAnswer]) -> list[str]:
    """The measures as lines of text, in per cent."""
    lines = [
        f"{'':10} {'answers':>7} {'right':>6} {'blind':>6} {'format':>6} {'seen':>6} {'suffic.':>7}"
        f" {'attrib.':>7}"
        f" {'right if seen':>13} {'if not':>6}"
    ]
    for name, found in (("all", measure(judged)), *by_kind(judged).items()):
        shares = (found.right, found.blind, found.adherence, found.seen)
        lines.append(
            f"{name:10} {found.answers:7} "
            + " ".join(f"{percent(share):>6}" for share in shares)
            + f" {percent(found.sufficient):>7} {percent(found.attributes):>7}"
            + f" {percent(found.right_if_seen):>13}"
            + f" {percent(found.right_if_not_seen):>6}"
        )
    attributes = ", ".join(
        f"{name} {percent(share)}" for name, share in by_attribute(judged).items()
    )
    return [*lines, f"attributes right: {attributes}"]


if __name__ == "__main__":
    run_command(PROG, main)
