"""Fuzzing of all that comes from outside, against the promises of README, docs and guides.

    python tests/fuzz/run.py [--minutes 20] [--seed S] [--kind NAME ...] [--jobs N]
    python tests/fuzz/run.py --kind replies --seed 7 --case 123        # one case again

Kinds: annotation and prediction files, answers and verdicts, replies of servers in both protocols
and of batches, whole small builds over such a server, media files, model folders and checkpoints.
Each finding is printed with the command that repeats it. At the end the counts of each kind are
printed, and written as JSON to `--output-dir`; `--record FILE` appends them as one line.
Exit status 1 where something was found, or where fewer cases were tried than belong to the time.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for place in (ROOT, ROOT / "tests"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from fuzz.harness import Finding, Fuzzing, Kind, Tally, opened, run_case  # noqa: E402

from schemas.runs import start_run  # noqa: E402

FULL_MINUTES = 20.0
KINDS = (
    Kind("texts", "fuzz.texts:open_texts", "texts", 20_000, 3.0),
    Kind("questions", "fuzz.files:open_questions", "question files", 1_000, 1.0),
    Kind("predictions", "fuzz.files:open_predictions", "prediction files", 300, 1.0),
    Kind("replies", "fuzz.replies:open_replies", "server replies", 5_000, 4.0),
    Kind("batches", "fuzz.batches:open_batches", "batch replies", 1_000, 3.0),
    Kind("builds", "fuzz.builds:open_builds", "builds", 20, 2.0, 400.0),
    Kind("media", "fuzz.media_files:open_media", "media files", 2_000, 4.0, 400.0),
    Kind("models", "fuzz.model_folders:open_models", "model folders", 80, 3.0, 200.0),
)
_SHOWN_PER_SIGNATURE = 2


def command_of(finding: Finding, seed: int) -> str:
    """What repeats a finding."""
    case = f" --case {finding.number}" if finding.number >= 0 else ""
    return f"python tests/fuzz/run.py --kind {finding.kind} --seed {seed}{case}"


class Printer:
    """Prints findings as they come, those of one signature twice at most."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._shown: Counter[str] = Counter()

    def __call__(self, finding: Finding) -> None:
        self._shown[finding.signature] += 1
        if self._shown[finding.signature] > _SHOWN_PER_SIGNATURE:
            return
        indented = finding.words.replace("\n", "\n    ")
        print(f"FOUND in {finding.kind}: {finding.signature}\n    {indented}", flush=True)
        print(f"    again: {command_of(finding, self._seed)}", flush=True)


def run_one(kind: Kind, seed: int, number: int) -> int:
    """One case in this process, so that a debugger can be used; 1 where something was found."""
    with tempfile.TemporaryDirectory() as folder, opened(kind, Path(folder)) as runner:
        counted, found = run_case(kind, runner, seed, number)
    if found is None:
        print(f"{kind.name} {number}: nothing found; {dict(counted)}")
        return 0
    Printer(seed)(found)
    return 1


def summary(tallies: Sequence[Tally], seed: int, minutes: float, command: str) -> dict[str, Any]:
    """All that is known at the end, as JSON."""
    run = start_run(command, {})
    return {
        "what": "fuzz",
        "date": run.started_at,
        "commit": run.commit,
        "dirty": run.dirty,
        "python": run.python,
        "versions": run.versions,
        "seed": seed,
        "minutes": minutes,
        "kinds": {
            tally.kind.name: {
                "cases": tally.cases,
                "seconds": round(tally.seconds, 1),
                "counts": dict(sorted(tally.counts.items())),
                "findings": len(tally.findings),
            }
            for tally in tallies
        },
        "findings": [
            {"signature": one.signature, "words": one.words, "again": command_of(one, seed)}
            for tally in tallies
            for one in _one_per_signature(tally.findings)
        ],
    }


def _one_per_signature(findings: Sequence[Finding]) -> list[Finding]:
    return list({one.signature: one for one in reversed(findings)}.values())


def _line(tally: Tally, needed: int) -> str:
    short = f"  (fewer than the {needed:,} of this time)" if tally.tried < needed else ""
    return (
        f"{tally.kind.name:12} {tally.tried:>8,} {tally.kind.unit:17} {tally.cases:>7,} cases"
        f" {len(tally.findings):>5} found {tally.seconds:7.0f} s{short}"
    )


def fuzz(kinds: Sequence[Kind], options: argparse.Namespace) -> int:
    """Every kind for its share of the time; prints and writes the counts."""
    tallies: list[Tally] = []
    needed: dict[str, int] = {}
    share = options.minutes * 60 / sum(kind.weight for kind in kinds)
    of_full = min(1.0, options.minutes / FULL_MINUTES) if len(kinds) == len(KINDS) else 0.0
    say = Printer(options.seed)
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.jobs} processes", flush=True)
    try:
        for kind in kinds:
            needed[kind.name] = int(kind.at_least * of_full)
            fuzzing = Fuzzing(kind, options.seed, options.jobs, say)
            tallies.append(fuzzing.tally)
            fuzzing.run(share * kind.weight, needed[kind.name])
            print(_line(fuzzing.tally, needed[kind.name]), flush=True)
    except KeyboardInterrupt:
        print("stopped; what follows is what was tried until now")
    found = summary(tallies, options.seed, options.minutes, " ".join(sys.argv))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    (options.output_dir / "fuzz.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if options.record is not None:
        with options.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    print("\n".join(_line(tally, needed[tally.kind.name]) for tally in tallies))
    print(f"{len(found['findings'])} different findings; {options.output_dir / 'fuzz.json'}")
    is_short = any(tally.tried < needed[tally.kind.name] for tally in tallies)
    return int(bool(found["findings"]) or is_short or len(tallies) < len(kinds))


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--minutes", type=float, default=FULL_MINUTES, help="of all kinds together (default: 20)")
    add("--seed", type=int, help="of all cases (default: the clock's); it is printed")
    add(
        "--kind", nargs="+", choices=[kind.name for kind in KINDS], help="only these (default: all)"
    )
    add("--case", type=int, help="try this one case of one kind, in this process")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    add("--output-dir", type=Path, default=ROOT / "out" / "fuzz", help="folder of fuzz.json")
    add("--record", type=Path, help="append the counts to this file, as one line of JSON")
    options = parser.parse_args(argv)
    if options.seed is None:
        options.seed = int(time.time())
    kinds = [kind for kind in KINDS if not options.kind or kind.name in options.kind]
    if options.case is None:
        return fuzz(kinds, options)
    if len(kinds) != 1:
        parser.error("--case belongs to one --kind")
    return run_one(kinds[0], options.seed, options.case)


if __name__ == "__main__":
    sys.exit(main())
