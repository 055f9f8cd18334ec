"""`python -m sandbox.clips`: render clips and stills of the scripted world, with questions.

Writes, under the output folder, which is also the media root:
    questions.json             records of the Video-R1 format
    videos/*.mp4, images/*.png
    truth/<clip>.json          what happens in the clip, and which frames each question depends on
    world.json                 the world's configuration and the best-constant baseline
    config.json                this command's options
The same options give the same bytes.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cli.config import (
    EXIT_OK,
    UsageError,
    parse_command,
    print_config,
    run_command,
    save_config,
)
from cli.option_groups import OutputOptions, SeedOptions
from cli.output_folder import claim_folder
from sandbox.option_groups import WorldPresetOptions, WorldSizeOptions
from sandbox.world.clips import NOTICE, PRESETS, Clip, WorldConfig
from schemas.serialization import content_id

PROG = "sandbox.clips"
Item = TypeVar("Item")


class ClipsConfig(
    OutputOptions[Path],
    WorldSizeOptions,
    WorldPresetOptions,
    SeedOptions,
    notes={
        "output_dir": "It must be empty, new, or one that this command wrote.",
        "num_questions": "Spread evenly over kinds; repetitions are numbered.",
    },
    group="data",
    example="--output-dir world --clips 12 --stills 4 --num-questions 40",
):
    """Options of `sandbox.clips`."""

    kinds: tuple[str, ...] = ()
    """Kinds of questions to ask (colour, count, still_word, ...); by default all there are."""


def main(argv: Sequence[str] | None = None) -> int:
    """Render the media, write questions and truth, print the best-constant baseline."""
    config = parse_command(
        ClipsConfig, argv, prog=PROG, description="Render the sandbox's clips and questions."
    )
    world, kinds = _world(config)
    out = config.output_dir
    _make_room(out)
    save_config(config, out / "config.json")
    print(NOTICE, file=sys.stderr)
    print_config(config)

    from sandbox.world.balanced_draw import draw_media

    media = draw_media(world, clips=config.clips, stills=config.stills, seed=config.seed)
    baseline, asked = _write_questions(out, media, world, kinds, config)
    for clip in _progress(media, "rendering", len(media)):
        _write_media(out, clip, world, asked.get(clip.name, []))
    summary = _summary(config, world, media, baseline)
    (out / "world.json").write_text(_json(summary), encoding="utf-8")
    print(_report(out, config, baseline))
    return EXIT_OK


def _world(config: ClipsConfig) -> tuple[WorldConfig, list[str]]:
    """The world of the preset, and the kinds of questions to ask."""
    world = PRESETS[config.preset]
    if config.clips + config.stills == 0:
        raise UsageError("--clips 0 and --stills 0 leave nothing to ask about: render at least one")
    offered = (world.kinds if config.clips else ()) + (world.still_kinds if config.stills else ())
    unknown = [kind for kind in config.kinds if kind not in offered]
    if unknown:
        raise UsageError(
            f"--kinds {' '.join(unknown)}: the {world.name!r} preset asks"
            f" {', '.join(offered)} of the media to render; choose among these"
        )
    return world, [kind for kind in offered if not config.kinds or kind in config.kinds]


def _make_room(out: Path) -> None:
    """Create the folders; delete the files of an earlier run of this command and nothing else."""
    claim_folder(out, PROG, option="--out")
    for folder, suffix in (("videos", "mp4"), ("images", "png"), ("truth", "json")):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for stem in ("clip", "still"):
            for old in (out / folder).glob(f"{stem}_[0-9]*.{suffix}"):
                old.unlink()
    for name in ("questions.json", "world.json"):
        (out / name).unlink(missing_ok=True)


def _write_questions(
    out: Path, media: list[Clip], world: WorldConfig, kinds: list[str], config: ClipsConfig
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Stream the questions to their file. Returns the baseline and the questions of each clip."""
    from sandbox.world.balanced_draw import Deck
    from sandbox.world.blind_baseline import BaselineTally
    from sandbox.world.questions import Query, crucial_cells, question_row, video_question

    deck = Deck(media, world, kinds, config.seed)
    tally, asked = BaselineTally(), dict[str, list[dict[str, Any]]]()
    counts: dict[tuple[str, Query], int] = {}
    first: dict[tuple[str, Query], dict[str, Any]] = {}
    with (out / "questions.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for i, drawn in enumerate(
            _progress(deck.deal(config.num_questions), "asking", config.num_questions)
        ):
            clip, facts, query, value = drawn
            row = question_row(query, value, clip, world, facts, i)
            file.write((",\n" if i else "\n") + json.dumps(row))
            key = (clip.name, query._replace(variant=0))
            counts[key] = counts.get(key, 0) + 1
            first.setdefault(key, row)
            if clip.kind == "video":
                cells = crucial_cells(query, clip, facts)
                asked.setdefault(clip.name, []).append(
                    {
                        "problem_id": i,
                        "kind": query.kind,
                        "answer": value,
                        "crucial_frames": world.frames_of(cells),
                        "crucial_seconds": row["time_clues"],
                    }
                )
        file.write("\n]\n")
    for (name, query), count in counts.items():
        tally.add(query.kind, query.text, video_question(first[name, query]), count)
    return tally.baseline().to_json(), asked


def _write_media(out: Path, clip: Clip, world: WorldConfig, asked: list[dict[str, Any]]) -> None:
    """One clip's file and its truth."""
    from sandbox.world.facts import facts_of, say
    from sandbox.world.render import render, write_image, write_video

    frames = render(clip, world)
    if clip.kind == "video":
        write_video(out / clip.path, frames, fps=world.frames_per_cell, crf=world.crf)
    else:
        write_image(out / clip.path, frames)
    truth = {
        "sandbox": NOTICE,
        **clip.to_json(),
        "path": clip.path,
        "frames": len(frames),
        "frames_per_second": world.frames_per_cell if clip.kind == "video" else None,
        "facts": [say(fact) for fact in facts_of(clip, world)],
        "questions": asked,
    }
    path = out / "truth" / f"{clip.name}.json"
    path.write_text(_json(truth), encoding="utf-8")


def _summary(
    config: ClipsConfig, world: WorldConfig, media: list[Clip], baseline: dict[str, Any]
) -> dict[str, Any]:
    made_of = [world.to_json(), [clip.to_json() for clip in media]]
    return {
        "sandbox": NOTICE,
        "world_id": content_id("world", made_of),
        "seed": config.seed,
        "clips": config.clips,
        "stills": config.stills,
        "questions": config.num_questions,
        "world": world.to_json(),
        "blind": baseline,
    }


def _report(out: Path, config: ClipsConfig, baseline: dict[str, Any]) -> str:
    """What was written, and the best-constant baseline of its questions."""
    lines = [
        f"{out}: {config.clips} clips, {config.stills} stills, {config.num_questions} questions"
        f" ({NOTICE})",
        "best-constant baseline (best guess without the video):",
    ]
    for kind, guess in baseline["by_kind"].items():
        lines.append(
            f"  {kind:14} {guess['score']:.3f}, {guess['pass_rate']:.3f} pass"
            f"  (guess {guess['guess']!r}; {guess['questions']} questions)"
        )
    types = ", ".join(f"{name} {score:.3f}" for name, score in baseline["by_type"].items())
    lines += [f"  by type: {types}", f"  overall: {baseline['overall']:.3f}"]
    return "\n".join(lines)


def _json(value: dict[str, Any]) -> str:
    """JSON with one top-level key per line."""
    lines = (f"{json.dumps(key)}: {json.dumps(content)}" for key, content in value.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _progress(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Pass `items` on; print on stderr how many of `total` are done and how fast."""
    started = shown = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if sys.stderr.isatty() and now - shown > 0.2:
            shown = now
            print(f"\r{what} {done} of {total}", end="", file=sys.stderr)
    rate = done / max(time.monotonic() - started, 1e-9)
    print(f"\r{what} {done} of {total}, {rate:.0f}/s", file=sys.stderr)


if __name__ == "__main__":
    run_command(PROG, main)
