"""Model folders and checkpoints with changed files: loaded as they are, or refused in a sentence.

A model that loads has the weights of its file and no others. A run whose newest checkpoint is
damaged ends in the same weights as an undisturbed one, or stops with a sentence; never otherwise.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from fuzz.children import Ended, in_child
from fuzz.harness import Case, Runner
from fuzz.nasty import mutated_bytes, mutated_json
from fuzz.texts import promise
from helpers.training_world import small_world, tiny_model_folder
from safetensors.torch import load_file, save_file

from cli.config import EXIT_STOPPED, EXIT_USAGE, UsageError, run_command
from judges.backends.base import BackendUnavailableError
from schemas.serialization import digest
from train import sft
from train.modeling.loading import load_policy, load_processor, processor_family

_GIGABYTES = 24.0
_FAMILIES = ("qwen2.5-vl", "qwen3-vl")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1234\n"
_MARKER = "code-was-run"
_EVIL = f"open({_MARKER!r}, 'w').close()\nclass Evil: pass\n"
_WEIGHTS = "model.safetensors"


def changed_file(draw: random.Random, path: Path) -> str:
    """Damage one file; says how. Bytes, a cut, nothing left, a pointer, zeros, gone, or JSON."""
    data = path.read_bytes()
    ways = ["bytes", "cut", "empty", "pointer", "zeros", "gone"]
    if path.suffix == ".json":
        ways += ["json"] * 4
    way = draw.choice(ways)
    match way:
        case "bytes":
            head = draw.choice((64, 2048, len(data)))
            path.write_bytes(mutated_bytes(draw, data[:head]) + data[head:])
        case "cut":
            path.write_bytes(data[: draw.randrange(len(data))])
        case "empty":
            path.write_bytes(b"")
        case "pointer":
            path.write_bytes(_LFS_POINTER)
        case "zeros":
            path.write_bytes(bytes(len(data)))
        case "gone":
            path.unlink()
        case _:
            path.write_text(json.dumps(mutated_json(draw, json.loads(data))), "utf-8")
    return way


def changed_tensors(draw: random.Random, folder: Path) -> str:
    """Take tensors out of the weights, rename them, give them other shapes or types."""
    tensors = load_file(folder / _WEIGHTS)
    names = draw.sample(sorted(tensors), draw.randint(1, 4))
    way = draw.choice(("missing", "renamed", "shape", "prefixed", "type"))
    for name in names:
        match way:
            case "missing":
                del tensors[name]
            case "renamed":
                tensors[name + "_old"] = tensors.pop(name)
            case "shape":
                tensors[name] = tensors[name].flatten()[:-1].clone()
            case "type":
                tensors[name] = tensors[name].to(draw.choice((torch.float16, torch.int8)))
    if way == "prefixed":
        tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / _WEIGHTS, {"format": "pt"})
    return f"{way} {', '.join(names)}"


def with_own_code(draw: random.Random, folder: Path) -> str:
    """A folder that brings code, which must not run."""
    (folder / "evil.py").write_text(_EVIL, "utf-8")
    name = draw.choice(("config.json", "processor_config.json", "tokenizer_config.json"))
    path = folder / name
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    autos = ("AutoConfig", "AutoProcessor", "AutoTokenizer", "AutoModelForImageTextToText")
    content["auto_map"] = dict.fromkeys(autos, "evil.Evil")
    if draw.random() < 0.5:
        content |= {"model_type": "evil", "processor_class": "Evil", "tokenizer_class": "Evil"}
    path.write_text(json.dumps(content), "utf-8")
    return f"own code in {name}"


def load_all(folder: Path) -> str:
    """Load processor and model as commands do; the weights must be the file's."""
    try:
        processor_family(load_processor(folder))
        model = load_policy(folder, device="cpu")
    except UsageError as error:
        promise(bool(str(error).strip()) and "Traceback" not in str(error), "no sentence")
        return "refused"
    kinds = {parameter.dtype for parameter in model.parameters()}
    files = sorted(folder.glob("*.safetensors"))
    saved = {
        _hash(tensor.to(kind))
        for file in files
        for tensor in load_file(file).values()
        for kind in kinds
    }
    foreign = [name for name, one in model.named_parameters() if _hash(one.detach()) not in saved]
    promise(not foreign, f"{len(foreign)} weights that no file holds, like {foreign[:2]}")
    return "loaded"


def load_judge(folder: Path) -> str:
    """Open a folder as a local judge."""
    import asyncio

    from judges.backends.registry import BackendOptions, open_backend

    async def opened() -> None:
        backend = await open_backend(f"local:{folder}", BackendOptions(device="cpu"))
        await backend.aclose()

    try:
        asyncio.run(opened())
    except (UsageError, BackendUnavailableError) as error:
        promise(bool(str(error).strip()) and "Traceback" not in str(error), "no sentence")
        return "refused"
    return "loaded"


def _hash(tensor: torch.Tensor) -> str:
    return digest(tensor.contiguous().view(torch.uint8).numpy().tobytes())


class Interrupted:
    """An SFT run as a kill behind its second checkpoint leaves it, and the weights of its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._media, self._dataset = small_world(folder, num_rows=8)
        self._out = folder / "run"
        self._aside = folder / "killed"
        process = subprocess.Popen(
            [sys.executable, "-m", "train.sft", *self.words()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        state = self._out / "checkpoint-4" / "trainer_state.json"
        while not state.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        shutil.copytree(self._out, self._aside)
        shutil.rmtree(self._aside / "checkpoint-6", ignore_errors=True)
        process.send_signal(signal.SIGCONT)
        assert process.wait() == 0
        assert not (self._aside / "report.json").exists()
        self.expected = load_file(self._out / _WEIGHTS)

    def words(self) -> list[str]:
        """The command's words: 6 steps of 4 rows, a checkpoint after every second one."""
        options = {
            "model": tiny_model_folder("qwen2.5-vl"),
            "dataset": self._dataset,
            "media-root": self._media,
            "output-dir": self._out,
            "frame-cache": self._folder / "cache",
            "learning-rate": "1e-3",
            "batch-size": 4,
            "max-steps": 6,
            "save-steps": 2,
            "held-out-rows": 0,
        }
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def damaged(self, draw: random.Random) -> tuple[str, bool]:
        """Put the killed run back and damage its newest checkpoint: how, and whether that can be
        seen from the file (other bytes of the same length in a tensor cannot)."""
        shutil.rmtree(self._out, ignore_errors=True)
        shutil.copytree(self._aside, self._out)
        newest = max(
            self._out.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2])
        )
        path = draw.choice([one for one in sorted(newest.iterdir()) if one.stat().st_size])
        way = changed_file(draw, path)
        return f"{way} of {newest.name}/{path.name}", way not in {"bytes", "zeros", "json"}

    def resume(self) -> str:
        """The same command again; its exit status."""
        try:
            run_command(sft.PROG, lambda: sft.main(self.words()))
        except SystemExit as end:
            return str(end.code)
        return "0"

    def check(self, how: str, is_visible: bool, ended: Ended) -> None:
        """The weights of an undisturbed run, or a sentence."""
        last = ended.printed.strip().splitlines()[-1:]
        promise("Traceback (most" not in ended.printed, f"{how}: a traceback, {last}")
        if ended.result in {str(EXIT_USAGE), str(EXIT_STOPPED)}:
            promise(bool(last) and last[0].startswith(sft.PROG), f"{how}: no sentence, {last}")
            return
        promise(ended.result == "0", f"{how}: status {ended.result}, {last}")
        if is_visible:
            found = load_file(self._out / _WEIGHTS)
            same = all(torch.equal(found[name], one) for name, one in self.expected.items())
            promise(same, f"{how}: resumed without a word, and ended in other weights")


class ModelRunner:
    """Folders to damage, made once; each case has a copy and a process of its own."""

    def __init__(self, folder: Path) -> None:
        from sandbox.models.tiny_models import save_tiny_model

        self._llama = save_tiny_model("llama", folder / "llama")
        self._tiny = [tiny_model_folder(family) for family in _FAMILIES]
        self._run = Interrupted(folder)

    def __call__(self, case: Case) -> Counter[str]:
        draw = case.draw
        if case.number % 6 == 5:
            how, is_visible = self._run.damaged(draw)
            ended = self._in_child(case, self._run.resume)
            self._run.check(how, is_visible, ended)
            return Counter({"model folders": 1, "checkpoints": 1})
        is_judge = case.number % 6 == 4
        source = self._llama if is_judge else draw.choice(self._tiny)
        folder = case.folder / "model"
        shutil.copytree(source, folder)
        how = self._damage(draw, folder)
        loader: Callable[[Path], str] = load_judge if is_judge else load_all
        ended = self._in_child(case, lambda: loader(folder), how)
        promise(not (case.folder / _MARKER).exists(), f"{how}: its code was run")
        return Counter({"model folders": 1, ended.result: 1})

    def _damage(self, draw: random.Random, folder: Path) -> str:
        way = draw.random()
        if way < 0.35:
            return changed_tensors(draw, folder)
        if way < 0.45:
            return with_own_code(draw, folder)
        path = draw.choice([one for one in sorted(folder.iterdir()) if one.stat().st_size])
        return f"{changed_file(draw, path)} of {path.name}"

    def _in_child(self, case: Case, function: Callable[[], str], how: str = "") -> Ended:
        def in_folder() -> str:
            os.chdir(case.folder)
            return function()

        try:
            return in_child(in_folder, case.folder, seconds=90, gigabytes=_GIGABYTES)
        except BaseException as error:
            error.add_note(f"the damage: {how}")
            raise


@contextmanager
def open_models(folder: Path) -> Iterator[Runner]:
    """Tiny models, and a killed run."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    yield ModelRunner(folder)
