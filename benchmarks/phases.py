"""Where the seconds of a training step go, in workers that take turns."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.turns import forget_peak, peak_megabytes, release, settle

REST = "optimizer and the rest"


class Phases:
    """Takes turns with other workers, a whole optimizer step each; says where the time went."""

    def __init__(self, device: str) -> None:
        self.device = device
        # stdout carries the steps to the parent; what the trainers print goes to stderr.
        self._steps_out, sys.stdout = sys.stdout, sys.stderr
        self._is_timing = False
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self.steps: list[dict[str, float]] = []
        self.processor_steps: list[dict[str, float]] = []
        self.waited: list[float] = []
        self.value = 0.0

    def time(self, owner: Any, name: str, phase: str) -> None:
        """Count the seconds of a method, with all that it calls."""
        method = getattr(owner, name)

        def timed(*given: Any, **named: Any) -> Any:
            if self._is_timing:
                return method(*given, **named)
            self._is_timing = True
            began = time.perf_counter(), time.process_time()
            result = method(*given, **named)
            settle(self.device)
            self._is_timing = False
            ends = time.perf_counter(), time.process_time()
            for counted, start, end in zip(
                (self.seconds, self.processor), began, ends, strict=True
            ):
                counted[phase] = counted.get(phase, 0.0) + end - start
            return result

        setattr(owner, name, timed)

    def observe(self, report: Any) -> dict[str, float]:
        """How long the step stood still for its judge."""
        self.waited.append(report.judge.seconds_waited)
        return {}

    def callback(self) -> Any:
        """What makes the trainer wait for its turn, before each step."""
        from train.trainers.trl_imports import TrainerCallback

        phases = self

        class Turns(TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                if not phases.steps:
                    forget_peak(phases.device)
                    phases.before = peak_megabytes(phases.device)
                    phases.tell("ready")
                    sys.stdin.readline()
                settle(phases.device)
                phases.seconds, phases.processor = {}, {}
                phases.began = time.perf_counter(), time.process_time()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                settle(phases.device)
                wall, processor = time.perf_counter(), time.process_time()
                taken, used = wall - phases.began[0], processor - phases.began[1]
                for steps, whole, counted in (
                    (phases.steps, taken, phases.seconds),
                    (phases.processor_steps, used, phases.processor),
                ):
                    steps.append({**counted, REST: whole - sum(counted.values())})
                release(phases.device)
                phases.tell(taken, used)
                control.should_training_stop = not sys.stdin.readline()

        return Turns()

    before: float
    began: tuple[float, float]

    def end(self) -> None:
        """The last line: peak memory, and the phases of the steps that counted."""
        end = {
            "megabytes": peak_megabytes(self.device) - self.before,
            "value": self.value,
            "seconds": _by_phase(self.steps),
            "processor seconds": _by_phase(self.processor_steps),
            "waited": self.waited[1:],
        }
        self.tell(json.dumps(end))

    def tell(self, *what: Any) -> None:
        """A line to whoever started this worker."""
        print(*what, file=self._steps_out, flush=True)


def _by_phase(steps: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Seconds of each phase in each step that counts: all but the first."""
    names = {name for step in steps for name in step}
    return {name: [step.get(name, 0.0) for step in steps[1:]] for name in sorted(names)}
