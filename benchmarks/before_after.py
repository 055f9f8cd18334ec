"""Two checkouts against each other: is a change slower than what stood before it?

    git worktree add ../before REVISION
    python benchmarks/before_after.py --before ../before learner_pass.py --form "shared with appo"
    python benchmarks/before_after.py --before ../before rl_step.py --form pa-grpo+appo
    python benchmarks/before_after.py --before ../before throughput.py --calls 320

Both sides take turns in one run, each on code of its own checkout: the workers of a benchmark with
forms, or whole runs of `throughput.py`. Printed as JSON: after over before in each turn, the
geometric mean, and the upper end of its 95 % interval (t distribution of the logarithms).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.turns import UNITS, alternate

HERE = Path(__file__).resolve().parent


def slowdown(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Ratios after / before by turn, their geometric mean, and the 95 % interval's upper end."""
    from scipy import stats

    logs = [math.log(b / a) for a, b in zip(before, after, strict=True)]
    mean, spread = statistics.mean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    reach = float(stats.t.ppf(0.975, len(logs) - 1)) * spread
    return {
        "ratios": [round(math.exp(each), 3) for each in logs],
        "after over before": round(math.exp(mean), 3),
        "upper 95 %": round(math.exp(mean + reach), 3),
    }


def forms(scripts: dict[str, Path], rest: Sequence[str], repeats: int) -> dict[str, Any]:
    """Workers of one form, in turns."""
    commands = {side: [sys.executable, str(path), *rest] for side, path in scripts.items()}
    report = alternate(commands, repeats)
    return {
        "value": report["value"],
        **{unit: slowdown(report[unit]["before"], report[unit]["after"]) for unit in UNITS},
    }


def throughput(scripts: dict[str, Path], rest: Sequence[str], repeats: int) -> dict[str, Any]:
    """Whole runs in turns: seconds of a call, and this process's milliseconds of it."""
    found: dict[str, dict[str, list[float]]] = {"before": {}, "after": {}}
    for _ in range(repeats):
        for side, path in scripts.items():
            command = [sys.executable, str(path), "--repeats", "1", *rest]
            own = os.environ | {"PYTHONPATH": str(path.parent.parent)}  # not the installed checkout
            report = json.loads(subprocess.check_output(command, text=True, env=own))
            for name, part in report.items():
                if isinstance(part, dict):
                    values = found[side]
                    ours = part["ours"]
                    values.setdefault(f"{name}, s a call", []).append(1 / ours["calls_per_second"])
                    values.setdefault(f"{name}, CPU ms a call", []).append(ours["cpu_ms_per_call"])
    return {name: slowdown(found["before"][name], found["after"][name]) for name in found["after"]}


def main() -> None:
    """Run the comparison and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--repeats", type=int, default=8, help="turns that count")
    parser.add_argument("benchmark", help="file name below benchmarks/; its options follow")
    options, rest = parser.parse_known_args()
    scripts = {
        "before": options.before.resolve() / "benchmarks" / options.benchmark,
        "after": HERE / options.benchmark,
    }
    compare = throughput if options.benchmark == "throughput.py" else forms
    print(json.dumps(compare(scripts, rest, options.repeats), indent=1))


if __name__ == "__main__":
    main()
