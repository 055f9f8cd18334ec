"""A build as large as VideoP2R's question pool: 263,055 questions over 100 stills, with the oracle
as teacher and judge.

    python benchmarks/scale.py [--questions 263055] [--folder F] [--blind-filter oracle:7,blind=0.2]

Reads, plans, runs and resumes it as a user would, in processes of their own, and prints seconds and
peak memory of each as JSON. The third run is killed half way (kill -9) before it is resumed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

QUESTIONS = 263_055
STILLS = 100


def measured(command: list[str], *, kill_after_settled: int | None = None) -> dict[str, Any]:
    """Seconds, exit status and peak memory (MB, decoding workers left out) of one process."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if kill_after_settled is not None:
        progress = Path(command[command.index("--out") + 1]) / "progress.json"
        while _settled(progress) < kill_after_settled:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise SystemExit(f"it ended before it could be killed half way: {_note(progress)}")
            time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_mb": round(usage.ru_maxrss / 1024),
        "exit_status": process.returncode,
    }


def _settled(progress: Path) -> int:
    return int(json.loads(progress.read_text())["settled"]) if progress.exists() else 0


def _note(progress: Path) -> str:
    """Why a build stopped, by its own words."""
    return str(json.loads(progress.read_text())["note"]) if progress.exists() else "it never began"


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--folder", type=Path, help="where to work; default a temporary folder")
    parser.add_argument(
        "--blind-filter", help="a text reader to ask too, for example oracle:7,blind=0.2"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        world, out = folder / "world", folder / "out"
        render = [sys.executable, "-m", "sandbox.clips", "--out", str(world), "--clips", "0"]
        render += [
            "--stills",
            str(STILLS),
            "--num-questions",
            str(options.questions),
            "--seed",
            "7",
        ]
        report: dict[str, Any] = {"questions": options.questions, "stills": STILLS}
        report["render"] = measured(render)
        build = [sys.executable, "-m", "pipeline.build_cot"]
        build += ["--questions", str(world / "questions.json"), "--media-root", str(world)]
        build += ["--generator", "oracle:7,wrong=0.15,malformed=0.05", "--judge", "oracle:7"]
        build += ["--frame-cache", str(folder / "frames"), "--out", str(out)]
        report["check"] = measured([*build[:-2], "--check"])
        if options.blind_filter:
            build += ["--blind-filter", options.blind_filter]
            report["blind filter"] = options.blind_filter
        report["quote"] = measured([*build, "--dry-run"])
        report["killed half way"] = measured(build, kill_after_settled=options.questions // 2)
        report["resumed to the end"] = measured(build)
        report["resumed with nothing to do"] = measured(build)
        status = json.loads((out / "progress.json").read_text())
        report["settled"], report["accepted"] = status["settled"], status["accepted"]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
