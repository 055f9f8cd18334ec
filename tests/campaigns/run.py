"""Kill campaigns: many `kill -9` of a build, of fine-tuning and of RL; the end must be the same.

    python tests/campaigns/run.py [build] [sft] [rl] [--share 0.1] [--kills N] [--rows N]

Without names all three: 200 kills of a build of 20,000 rows, 30 of fine-tuning, 30 of RL. An hour
or two; stopped with Ctrl-C, the same command goes on where it was, and one that was finished begins
anew. Each kill is printed. `--share` makes everything smaller. `--record FILE` appends each result
with date, versions and seed as one line of JSON. Exit status 1 where a disturbed run ended
otherwise than a calm one.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for place in (ROOT, ROOT / "tests"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from campaigns.builds import run_builds  # noqa: E402
from campaigns.killing import Campaign, CampaignError, last_lines  # noqa: E402
from campaigns.trainings import run_rl, run_sft  # noqa: E402

from schemas.runs import start_run  # noqa: E402


@dataclass(frozen=True)
class Kind:
    """A campaign at full size. `size` is the rows of a build; trainings have as many steps as their
    kills need."""

    run: Callable[[Campaign], dict[str, Any]]
    kills: int
    size: int = 0


_FINISHED = "finished"  # a file
KINDS = {"build": Kind(run_builds, 200, 20_000), "sft": Kind(run_sft, 30), "rl": Kind(run_rl, 30)}


def campaign_of(name: str, options: argparse.Namespace) -> Campaign:
    """The campaign that the options ask for."""
    kind = KINDS[name]
    kills = options.kills or max(1, round(kind.kills * options.share))
    size = options.rows or round(kind.size * options.share)
    folder = options.output_dir / f"{name}-{options.seed}-{kills}-{size}"
    return Campaign(name, folder, options.seed, kills, size if kind.size else 0)


def result_of(campaign: Campaign) -> dict[str, Any]:
    """Run it; what is recorded of it."""
    run = start_run(" ".join(sys.argv), {})
    try:
        found = KINDS[campaign.name].run(campaign)
    except CampaignError as error:
        found = {"differences": [f"could not go on: {error}"]}
    return {
        "what": "campaign",
        "name": campaign.name,
        "date": run.started_at,
        "commit": run.commit,
        "dirty": run.dirty,
        "python": run.python,
        "versions": run.versions,
        "seed": campaign.seed,
        **found,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="build, sft, rl (default: all)")
    add("--share", type=float, default=1.0, help="of the full size (default: 1)")
    add("--kills", type=int, help="instead of the share's number")
    add("--rows", type=int, help="of the build, instead of the share's number")
    add("--seed", type=int, default=1, help="of all moments and data (default: 1)")
    add("--output-dir", type=Path, default=ROOT / "out" / "campaigns", help="where to work")
    add("--record", type=Path, help="append each result to this file, as a line of JSON")
    options = parser.parse_args(argv)
    if unknown := sorted({*options.names} - {*KINDS}):
        parser.error(f"no such campaign: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    is_equal = True
    for name in options.names or list(KINDS):
        campaign = campaign_of(name, options)
        if (campaign.folder / _FINISHED).exists():
            shutil.rmtree(campaign.folder)
        result = result_of(campaign)
        (campaign.folder / _FINISHED).touch()
        is_equal &= not result["differences"]
        print(json.dumps({key: value for key, value in result.items() if key != "versions"}))
        if result["differences"]:
            print(f"{name} DIFFERS; all that its commands printed: {campaign.log}")
            print(last_lines(campaign.log) if campaign.log.exists() else "")
        if options.record is not None:
            with options.record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
