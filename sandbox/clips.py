"""`python -m sandbox.clips`: render clips and stills of the scripted world, with questions.

Writes, under the output folder, which is also the media root:
    questions.json             records of the Video-R1 format
    videos/*.mp4, images/*.png
    truth/<clip>.json          what happens in the clip, and which frames each question hinges on
    world.json                 the world's configuration and the questions' blind level
    config.json                this command's options
The same options give the same bytes.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from sandbox.world import NOTICE, PRESETS, Clip, WorldConfig
from schemas.config import (
    EXIT_OK,
    Config,
    UsageError,
    parse_command,
    print_config,
    run_command,
    save_config,
)
from schemas.ids import content_id

PROG = "sandbox.clips"
Item = TypeVar("Item")


class ClipsConfig(Config):
    """Options of `sandbox.clips`."""

    output_dir: Path
    """Folder to write; an empty or new one, or one that this command wrote before."""
    clips: int = Field(60, ge=0)
    """Video clips to render."""
    stills: int = Field(20, ge=0)
    """Still images to render."""
    questions: int = Field(300, ge=1)
    """Questions to ask, spread evenly over kinds; numbered repetitions when the clips run out."""
    seed: int = 0
    """Everything follows from it: the same seed gives the same files."""
    preset: Literal["full", "tiny"] = "full"
    """`full`: 8 s, 112 x 112 pixels, all kinds. `tiny`: 4 s, 56 x 56, for a model of 1 M."""
    kinds: tuple[str, ...] = ()
    """Kinds of questions to ask (colour, count, still_word, ...); by default all there are."""


def main(argv: Sequence[str] | None = None) -> int:
    """Render the media, write questions and truth, print the blind level."""
    config = parse_command(
        ClipsConfig, argv, prog=PROG, description="Render the sandbox's clips and questions."
    )
    world, kinds = _world(config)
    out = config.output_dir
    _make_room(out)
    save_config(config, out / "config.json")
    print(NOTICE, file=sys.stderr)
    print_config(config)

    from sandbox.deck import draw_media

    media = draw_media(world, clips=config.clips, stills=config.stills, seed=config.seed)
    blind, asked = _write_questions(out, media, world, kinds, config)
    for clip in _progress(media, "rendering", len(media)):
        _write_media(out, clip, world, asked.get(clip.name, []))
    summary = _summary(config, world, media, blind)
    (out / "world.json").write_text(_json(summary), encoding="utf-8")
    print(_report(out, config, blind))
    return EXIT_OK


def _world(config: ClipsConfig) -> tuple[WorldConfig, list[str]]:
    """The preset and the kinds that it is to ask."""
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
    """Create the folders; clear what an earlier run of this command left, and nothing else."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: give a folder")
    if out.exists() and any(out.iterdir()) and not _is_ours(out):
        raise UsageError(
            f"--out {out} holds other files than a sandbox: give an empty or a new folder"
        )
    for folder, suffix in (("videos", "mp4"), ("images", "png"), ("truth", "json")):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for stem in ("clip", "still"):
            for old in (out / folder).glob(f"{stem}_[0-9]*.{suffix}"):
                old.unlink()
    for name in ("questions.json", "world.json"):
        (out / name).unlink(missing_ok=True)


def _is_ours(out: Path) -> bool:
    """Whether this command wrote its options there: it does so before anything else."""
    try:
        options = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(options, dict) and {"clips", "stills", "preset"} <= set(options)


def _write_questions(
    out: Path, media: list[Clip], world: WorldConfig, kinds: list[str], config: ClipsConfig
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Stream the questions to their file. Returns the blind level and, per clip, what was asked."""
    from sandbox.blind import BlindTally
    from sandbox.deck import Deck
    from sandbox.questions import Query, crucial_cells, question_row, video_question

    deck = Deck(media, world, kinds, config.seed)
    tally, asked = BlindTally(), dict[str, list[dict[str, Any]]]()
    counts: dict[tuple[str, Query], int] = {}
    first: dict[tuple[str, Query], dict[str, Any]] = {}
    with (out / "questions.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for i, drawn in enumerate(
            _progress(deck.deal(config.questions), "asking", config.questions)
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
    return tally.level().to_json(), asked


def _write_media(out: Path, clip: Clip, world: WorldConfig, asked: list[dict[str, Any]]) -> None:
    """One clip's file and its truth."""
    from sandbox.facts import facts_of, say
    from sandbox.pixels import render, write_image, write_video

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
    config: ClipsConfig, world: WorldConfig, media: list[Clip], blind: dict[str, Any]
) -> dict[str, Any]:
    made_of = [world.to_json(), [clip.to_json() for clip in media]]
    return {
        "sandbox": NOTICE,
        "world_id": content_id("world", made_of),
        "seed": config.seed,
        "clips": config.clips,
        "stills": config.stills,
        "questions": config.questions,
        "world": world.to_json(),
        "blind": blind,
    }


def _report(out: Path, config: ClipsConfig, blind: dict[str, Any]) -> str:
    """What was made, and what a guesser who sees nothing would score on it."""
    lines = [
        f"{out}: {config.clips} clips, {config.stills} stills, {config.questions} questions"
        f" ({NOTICE})",
        "blind level (best guess without the video):",
    ]
    for kind, guess in blind["by_kind"].items():
        lines.append(
            f"  {kind:14} {guess['score']:.3f}, {guess['pass_rate']:.3f} pass"
            f"  (guess {guess['guess']!r}; {guess['questions']} questions)"
        )
    types = ", ".join(f"{name} {level:.3f}" for name, level in blind["by_type"].items())
    lines += [f"  by type: {types}", f"  overall: {blind['overall']:.3f}"]
    return "\n".join(lines)


def _json(value: dict[str, Any]) -> str:
    """JSON with one top-level key a line."""
    lines = (f"{json.dumps(key)}: {json.dumps(content)}" for key, content in value.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _progress(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Pass `items` on; say on stderr how many of `total` are done and how fast."""
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
