"""Kills of fine-tuning and of RL with a tiny model that learns: the same weights to the bit.

Some kills hit the start, the others the moment in which a checkpoint appears, or a little later:
checkpoints are cut off in the middle, too. RL begins with a model that was fine-tuned before, so
that its rewards differ and its weights move.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from campaigns.killing import (
    Campaign,
    CampaignError,
    Memory,
    Moment,
    killed_runs,
    run_to_end,
)

_SAVE_STEPS = 2
_SPARE_CHECKPOINTS = 6  # beyond one per kill
_PREPARING_STEPS = 80
_SHARE_AT_START = 0.15
_QUESTIONS = 40
_COMPARED = ("loss", "grad_norm", "rewards/reasoning/total", "length/completion", "kl")


def _steps(campaign: Campaign) -> int:
    return _SAVE_STEPS * (campaign.kills + _SPARE_CHECKPOINTS)


def _prepare(campaign: Campaign, memory: Memory) -> tuple[Path, Path, Path]:
    """World, dataset and a tiny model of random weights."""
    folder = campaign.folder
    world, dataset, model = folder / "world", folder / "cot", folder / "tiny"
    questions = ("--questions", str(world / "questions.json"), "--media-root", str(world))
    parts = {
        "world": [
            *("sandbox.clips", "--output-dir", str(world), "--preset", "tiny", "--clips", "12"),
            *("--stills", "0", "--num-questions", str(_QUESTIONS), "--seed", str(campaign.seed)),
        ],
        "dataset": [
            *("pipeline.build_cot", *questions, "--generator", "oracle:1", "--judge", "oracle:1"),
            *("--frame-cache", str(folder / "frames"), "--output-dir", str(dataset)),
        ],
        "model": ["sandbox.tiny_model", "--family", "qwen2.5-vl", "--output-dir", str(model)],
    }
    for part, words in parts.items():
        memory.once(part, lambda words=words: run_to_end(words, campaign.log))  # type: ignore[misc]
    return world, dataset, model


def _sft(campaign: Campaign, model: Path, out: Path, steps: int) -> list[str]:
    folder = campaign.folder
    return [
        *("train.sft", "--model", str(model), "--dataset", str(folder / "cot")),
        *("--media-root", str(folder / "world"), "--output-dir", str(out)),
        *("--frame-cache", str(folder / "frames"), "--learning-rate", "2e-3"),
        *(
            "--batch-size",
            "4",
            "--frames",
            "uniform:6",
            "--max-steps",
            str(steps),
            "--save-steps",
            str(_SAVE_STEPS),
        ),
        *("--logging-steps", "1", "--held-out-rows", "0", "--seed", str(campaign.seed)),
    ]


def _rl(campaign: Campaign, model: Path, out: Path, steps: int) -> list[str]:
    folder = campaign.folder
    return [
        *("train.rl", "--algo", "pa-grpo+appo", "--judge", "oracle:1", "--model", str(model)),
        *("--questions", str(folder / "world" / "questions.json")),
        *("--media-root", str(folder / "world"), "--output-dir", str(out)),
        *("--frame-cache", str(folder / "frames"), "--frames", "uniform:6"),
        *("--max-pixels", "3136", "--max-completion-length", "48", "--length-weight", "0"),
        *("--num-generations", "4", "--per-device-train-batch-size", "8"),
        *("--learning-rate", "1e-3", "--no-gradient-checkpointing", "--pages-every", "1000"),
        *("--max-steps", str(steps), "--save-steps", str(_SAVE_STEPS)),
        *("--seed", str(campaign.seed)),
    ]


def _num_checkpoints(out: Path) -> int:
    """The number of the newest checkpoint, whole or not."""
    numbers = [path.name.partition("-")[2] for path in out.glob("checkpoint-*")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _moment(campaign: Campaign, out: Path, kill: int) -> Moment:
    draw = campaign.draw(kill)
    if draw.random() < _SHARE_AT_START:
        seconds = draw.uniform(0.5, 15.0)
        return "at the start", lambda passed: passed >= seconds
    before = _num_checkpoints(out)
    later = draw.choice((0.0, draw.uniform(0.0, 0.1), draw.uniform(0.0, 0.6)))
    appeared: list[float] = []

    def is_time(passed: float) -> bool:
        if not appeared and _num_checkpoints(out) > before:
            appeared.append(passed)
        return bool(appeared) and passed >= appeared[0] + later

    return f"{later:.2f} s after a checkpoint appeared", is_time


def _killed(
    campaign: Campaign, memory: Memory, words_of: Callable[[Path], list[str]]
) -> list[Path]:
    return killed_runs(
        campaign,
        memory,
        words_of,
        lambda out, kill: _moment(campaign, out, kill),
        lambda out: f"newest checkpoint {_num_checkpoints(out)} of {_steps(campaign)}",
    )


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors: dict[str, Any] = load_file(folder / "model.safetensors")
    return tensors


def _different_weights(one: Path, other: Path) -> list[str]:
    here, there = _weights(one), _weights(other)
    return sorted(
        name
        for name in {*here, *there}
        if name not in here or name not in there or not here[name].equal(there[name])
    )


def _result(
    campaign: Campaign, memory: Memory, started: float, moved: Sequence[str], found: Sequence[str]
) -> dict[str, Any]:
    if not moved:
        raise CampaignError("no weight moved: equal weights show nothing")
    return {
        "steps": _steps(campaign),
        "kills": len(memory.kills),
        "runs": memory.rounds,
        "moved weights": len(moved),
        "differences": list(found),
        "seconds": round(time.monotonic() - started),
    }


def run_sft(campaign: Campaign) -> dict[str, Any]:
    """Fine-tuning."""
    memory, started = Memory(campaign), time.monotonic()
    _, _, model = _prepare(campaign, memory)
    calm, steps = campaign.folder / "calm", _steps(campaign)
    memory.once("calm", lambda: run_to_end(_sft(campaign, model, calm, steps), campaign.log))
    losses = _losses(calm)
    if not losses[-1][1] < losses[0][1]:
        raise CampaignError("the loss did not fall: such a run shows nothing")
    found = []
    for out in _killed(campaign, memory, lambda out: _sft(campaign, model, out, steps)):
        found += [f"{out.name}: {name}" for name in _different_weights(calm, out)]
        found += [f"{out.name}: loss"] if _losses(out) != losses else []
    return _result(campaign, memory, started, _different_weights(model, calm), found)


def _losses(out: Path) -> list[list[float]]:
    """(step, loss) of each step."""
    report = json.loads((out / "report.json").read_text("utf-8"))
    losses: list[list[float]] = report["curves"]["loss"]
    return losses


def run_rl(campaign: Campaign) -> dict[str, Any]:
    """Reinforcement learning."""
    memory, started = Memory(campaign), time.monotonic()
    _, _, model = _prepare(campaign, memory)
    begun, calm, steps = campaign.folder / "tuned", campaign.folder / "calm", _steps(campaign)
    sft = _sft(campaign, model, begun, _PREPARING_STEPS)
    sft[sft.index("--save-steps") + 1] = str(_PREPARING_STEPS)
    memory.once("tuned", lambda: run_to_end(sft, campaign.log))
    memory.once("calm", lambda: run_to_end(_rl(campaign, begun, calm, steps), campaign.log))
    expected, found = _metrics(calm), []
    for out in _killed(campaign, memory, lambda out: _rl(campaign, begun, out, steps)):
        found += [f"{out.name}: {n}" for n in _different_weights(calm / "model", out / "model")]
        lines = _metrics(out)
        found += [
            f"{out.name}: {key}" for key in _COMPARED if _curve(lines, key) != _curve(expected, key)
        ]
    return _result(campaign, memory, started, _different_weights(begun, calm / "model"), found)


def _metrics(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _curve(lines: list[dict[str, Any]], key: str) -> list[Any]:
    return [line.get(key) for line in lines]
