"""Every command of the project with options for a small run, and the hard places to run it in."""

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from shutil import copytree
from tempfile import mkdtemp
from typing import Any

import pytest

TRACEBACK = "Traceback (most recent call last)"
_SECONDS = 240.0
_BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""

# `{out}` is the output, a folder or a file of its own; the others are inputs, see `prepared`.
COMMANDS: dict[str, str] = {
    "pipeline.build_cot": "--questions {world}/questions.json --media-root {world} --frame-cache"
    " {cache} --generator oracle:1 --judge oracle:1 --output-dir {out}",
    "pipeline.status": "{build}",
    "pipeline.browse": "{build} --media-root {world} --frame-cache {cache}",
    "judges.audit sample": "{out} --build {build} --size 6",
    "judges.audit run": "{audit} --judge oracle:0 --media-root {world}",
    "judges.audit label": "{audit} --export-file {out}.jsonl --annotator me",
    "judges.audit report": "{audit} --media-root {world} --frame-cache {cache} --output-dir {out}"
    " --resamples 200",
    "judges.audit gate": "{audit} --judge oracle:0 --write-baseline --baseline {out}.json",
    "train.sft": "--model {tiny} --dataset {build} --media-root {world} --frame-cache {cache}"
    " --output-dir {out} --max-steps 2 --batch-size 2 --save-steps 1 --held-out-rows 0",
    "train.rl": "--algo grpo --model {tiny} --questions {world}/questions.json --media-root {world}"
    " --frame-cache {cache} --output-dir {out} --max-steps 2 --num-generations 2"
    " --per-device-train-batch-size 2 --max-completion-length 8 --length-weight 0 --save-steps 1",
    "train.plan": "--model {tiny} --gpus 2",
    "train.evaluate": "--predictions {predictions} --output-dir {out}",
    "train.evaluate model": "--model {tiny} --questions {world}/questions.json --media-root {world}"
    " --frame-cache {cache} --output-dir {out} --limit 2 --max-new-tokens 8",
    "sandbox.clips": "--output-dir {out} --clips 2 --stills 1 --num-questions 4",
    "sandbox.tiny_model": "--output-dir {out} --family qwen2.5-vl",
    "sandbox.scripted_dataset": "--media-root {world} --output-dir {out} --limit 4",
    "sandbox.truth_labels": "{audit} --media-root {world} --output-file {out}.jsonl",
    "sandbox.observations": "{predictions} --media-root {world} --output-file {out}.json",
    "sandbox.crucial_frames": "--model {learner} --media-root {world} --frame-cache {cache}"
    " --output-file {out}.json --num-questions 2 --group-size 2 --max-new-tokens 8",
    "sandbox.warm_up": "--model {learner} --output-dir {out} --steps 2 --batch-size 2",
    "sandbox.llama_judge": "--output-dir {out} --steps 2 --clips 20 --held-out 20 --batch-size 2",
    "sandbox.demo": "--output-dir {out} --clips 4 --num-questions 8 --stills 2 --no-learning"
    " --audit-size 4",
    "sandbox.learning": "--output-dir {out} --parts sft --train-questions 100"
    " --evaluation-questions 50",
}
WRITERS = tuple(name for name in COMMANDS if name not in ("pipeline.status", "train.plan"))
FOLDER_WRITERS = tuple(
    name for name in WRITERS if "{out}" in COMMANDS[name] and "{out}." not in COMMANDS[name]
)


def cells(commands: Sequence[Any], ways: Sequence[Any], every: int = 0) -> list[Any]:
    """All pairs as parameters. Of each command's ways one in `every` (by default one alone) is a
    long test, another one for each command; the rest belongs to the campaigns."""
    every = every or len(ways)
    return [
        pytest.param(
            *(command if isinstance(command, tuple) else (command,)),
            way,
            marks=[pytest.mark.campaign] if (number + place) % every else [],
        )
        for number, command in enumerate(commands)
        for place, way in enumerate(ways)
    ]


def module_of(command: str) -> list[str]:
    """The words after `python -m`: `train.evaluate model` is the command `train.evaluate`."""
    name, _, more = command.partition(" ")
    return [name, *([more] if name == "judges.audit" else [])]


def prog_of(command: str) -> str:
    """How a command calls itself in its errors."""
    return module_of(command)[0]


def words_of(command: str, out: Path | str, inputs: Path) -> list[str]:
    """The command's words, its inputs in the folder `inputs`."""
    names = ("world", "build", "audit", "tiny", "learner", "cache", "predictions")
    places = {name: shlex.quote(str(inputs / name)) for name in names}
    places["predictions"] += ".jsonl"
    return [*module_of(command), *shlex.split(COMMANDS[command].format(out=out, **places))]


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    command: str
    status: int
    out: str
    err: str

    def check(self, *statuses: int) -> None:
        """No traceback, one of the statuses; wrong usage and a stop say so in a line of ours."""
        said = f"{self.command} ended with {self.status}:\n{self.out[-1500:]}\n{self.err[-2500:]}"
        assert TRACEBACK not in self.out + self.err, said
        assert self.status in statuses, said
        if self.status in (2, 3):
            ours = [line for line in self.err.splitlines() if is_ours(line, prog_of(self.command))]
            assert ours, f"no sentence of ours; {said}"


def is_ours(line: str, prog: str) -> bool:
    """Whether a line of stderr is a command's own last word."""
    stops = ("the same command again resumes", "run the same command", "stopped before anything")
    return line.startswith((f"{prog}: ", f"{prog} ")) or any(stop in line for stop in stops)


def environment(**more: str) -> dict[str, str]:
    """A user's environment without keys, with one thread and no hub."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ANTHROPIC_", "OPENAI_", "HF_", "WANDB"))
    }
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return kept | quiet | {"PYTHONDONTWRITEBYTECODE": "1"} | more


def run(
    words: list[str],
    folder: Path,
    *,
    max_file_bytes: int | None = None,
    interrupt_after: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Done:
    """Run a command in `folder`: with files up to a size only, with Ctrl-C after some seconds."""

    def limit() -> None:
        # ignored where the tests run in the background of a shell, and then here as well
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))

    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=dict(env or environment()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        preexec_fn=limit,
        start_new_session=True,  # Ctrl-C reaches the whole group, as on a terminal
    )
    try:
        if interrupt_after is not None:
            deadline = time.monotonic() + interrupt_after
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Done(" ".join(words[:2] if words[0] == "judges.audit" else words[:1]),
                process.returncode, out, err)  # fmt: skip


def without_packages(folder: Path, *packages: str) -> dict[str, str]:
    """An environment in which these packages are not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_BLOCKER.format(blocked={*packages}), "utf-8")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return environment(PYTHONPATH=os.pathsep.join(paths))


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@cache
def prepared() -> Path:
    """The folder of all inputs, made once per process; never written into."""
    root = Path(mkdtemp(prefix="p2r-hard-places-"))
    made = {
        "world": "sandbox.clips --output-dir world --preset tiny --clips 6 --stills 0"
        " --num-questions 16 --seed 1",
        "build": "pipeline.build_cot --questions world/questions.json --media-root world"
        " --frame-cache cache --generator oracle:1 --judge oracle:1 --output-dir build",
        "audit": "judges.audit sample audit --build build --size 6",
        "verdicts": "judges.audit run audit --judge oracle:0 --media-root world",
        "labels": "sandbox.truth_labels audit --media-root world --output-file labels.jsonl",
        "imported": "judges.audit label audit --import-file labels.jsonl",
        "tiny": "sandbox.tiny_model --family qwen2.5-vl --output-dir tiny",
        "learner": "sandbox.tiny_model --family qwen2.5-vl --model-preset learner"
        " --output-dir learner",
    }
    for part, words in made.items():
        done = run(shlex.split(words), root)
        assert done.status == 0, f"{part}: {done.out}\n{done.err}"
    questions = json.loads((root / "world" / "questions.json").read_text("utf-8"))
    answers = [
        {"question": one, "ground_truth": one["solution"], "model_output": "<answer>A</answer>"}
        for one in questions
    ]
    lines = "\n".join(json.dumps(one) for one in answers)
    (root / "predictions.jsonl").write_text(lines + "\n", "utf-8")
    return root


def own_inputs(folder: Path) -> Path:
    """Inputs that a test may write into: the audit is copied, the rest linked."""
    inputs = folder / "inputs"
    inputs.mkdir()
    for path in prepared().iterdir():
        if path.name == "audit":
            copytree(path, inputs / path.name)
        else:
            (inputs / path.name).symlink_to(path)
    return inputs
