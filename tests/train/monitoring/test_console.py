"""The console of training: its lines, its table on a terminal, and what libraries say."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from train.monitoring.console import RL_COLUMNS, StepConsole

METRICS = {
    "loss": 0.1,
    "rewards/perception/total": 0.62,
    "rewards/reasoning/total": 1.5,
    "rewards/reasoning/accuracy": 0.55,
    "length/completion": 117.6,
    "groups/flat_reasoning": 0.25,
    "groups/flat_both": 0.125,
    "judge/seconds_waited": 0.34,
}


def state(step: int, *, max_steps: int = 40, is_first: bool = True) -> Any:
    return SimpleNamespace(global_step=step, max_steps=max_steps, is_world_process_zero=is_first)


def started(console: StepConsole, *, step: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The console at the begin of training, and its clock, which stands still."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    console.on_train_begin(None, state(step), None)
    return clock


def test_a_step_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = StepConsole(RL_COLUMNS, is_live=False)
    clock = started(console, step=10, monkeypatch=monkeypatch)
    clock[0] += 8
    console.on_log(None, state(12), None, logs=METRICS)
    clock[0] += 2
    console.on_log(None, state(40), None, logs={"loss": 0.0, "kl": 0.00126})
    assert capsys.readouterr().err.splitlines() == [
        "step 12/40  perception 0.620  reasoning 1.500  accuracy 55.0%  tokens 118  flat 12%"
        "  judge wait 0.3 s  4.0 s a step  1 min 52 s left",
        "step 40/40  KL 0.0013  0.1 s a step  done",
    ]


def test_what_is_no_step_and_other_processes_print_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = StepConsole(RL_COLUMNS, is_live=False)
    console.on_train_begin(None, state(0), None)
    console.on_log(None, state(40), None, logs={"train_loss": 0.1, "train_runtime": 3.0})
    console.on_log(None, state(3, is_first=False), None, logs=METRICS)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_terminal_gets_the_last_steps_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with StepConsole(RL_COLUMNS, is_live=True) as console:
        console.on_train_begin(None, state(0), None)
        for step in range(1, 21):
            console.on_log(None, state(step), None, logs=METRICS | {"length/completion": step})
    table = capsys.readouterr().err.rpartition("judge wait")[2]
    assert [f" {step}/40" in table for step in (5, 6, 20)] == [False, True, True]
    assert "0.620" in table
    assert "–" in table, "this run has no KL"


def test_the_trainers_own_bar_goes_and_no_tqdm_means_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback

    removed: list[Any] = []
    bars = [ProgressCallback(), PrinterCallback()]
    trainer = SimpleNamespace(
        args=SimpleNamespace(disable_tqdm=True),
        callback_handler=SimpleNamespace(callbacks=[TrainerCallback(), *bars]),
        remove_callback=removed.append,
    )
    with StepConsole(RL_COLUMNS, is_live=True) as console:
        console.replace_bars_of(trainer)
        console.on_train_begin(None, state(0), None)
        console.on_log(None, state(1), None, logs=METRICS)
    assert removed == bars
    assert capsys.readouterr().err.startswith("step  1/40  perception 0.620")
