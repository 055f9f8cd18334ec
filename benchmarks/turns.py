"""Variants of the same work take turns, each in its own process, so that peaks are separate.

A worker prints a line when it is ready, runs once for every line it gets and prints the seconds,
those on the clock and those of its processor, and at the end one JSON object with its peak memory.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

UNITS = ("seconds", "processor seconds")


def peak_megabytes(device: str = "cpu") -> float:
    """The most memory this process ever held, or its tensors on a GPU."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


def settle(device: str) -> None:
    """Wait until a GPU has done all that was asked of it."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def forget_peak(device: str) -> None:
    """What making a model took on a GPU does not count."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()


def release(device: str) -> None:
    """Give a GPU's unused memory back: all forms hold their model on it."""
    if device != "cpu":
        import torch

        torch.cuda.empty_cache()


def serve(run: Callable[[], float], device: str = "cpu") -> None:
    """The worker: `run` does the work once and returns a number that all forms must agree on.

    A GPU has done all that was asked of it before the clock starts and when it stops.
    """
    forget_peak(device)
    before, value = peak_megabytes(device), 0.0
    print("ready", flush=True)
    for _ in sys.stdin:
        settle(device)
        started, processor = time.perf_counter(), time.process_time()
        value = run()
        settle(device)
        taken = time.perf_counter() - started, time.process_time() - processor
        release(device)
        print(*taken, flush=True)
    print(json.dumps({"megabytes": peak_megabytes(device) - before, "value": value}))


def alternate(commands: Mapping[str, Sequence[str]], repeats: int) -> dict[str, Any]:
    """Run the forms in turn, one warm-up and `repeats` that count; seconds, spreads and peaks.

    "ends" are the workers' last words, for what they say beyond that.
    """
    workers = {}
    for form, command in commands.items():
        workers[form] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    for process in workers.values():
        _line(process)
    seconds: dict[str, list[float]] = {form: [] for form in commands}
    processor: dict[str, list[float]] = {form: [] for form in commands}
    for turn in range(repeats + 1):
        for form, process in workers.items():
            assert process.stdin
            process.stdin.write("run\n")
            process.stdin.flush()
            taken, used = map(float, _line(process).split())
            if turn:
                seconds[form].append(taken)
                processor[form].append(used)
    ends = {form: json.loads(process.communicate()[0]) for form, process in workers.items()}
    return {
        "median seconds": {form: round(statistics.median(s), 3) for form, s in seconds.items()},
        "seconds": {form: [round(value, 3) for value in s] for form, s in seconds.items()},
        "processor seconds": {
            form: [round(value, 3) for value in s] for form, s in processor.items()
        },
        "peak MB above the model": {form: round(end["megabytes"]) for form, end in ends.items()},
        "value": {form: round(end["value"], 6) for form, end in ends.items()},
        "ends": ends,
    }


def median_ratio(report: Mapping[str, Any], form: str, to: str, unit: str = "seconds") -> float:
    """Median over turns of one form's seconds over another's in the same turn.

    "processor seconds" tell work on a CPU apart from what else the machine is busy with.
    """
    pairs = zip(report[unit][form], report[unit][to], strict=True)
    return round(statistics.median(one / other for one, other in pairs), 3)


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a worker failed; its error is above")
    return line
