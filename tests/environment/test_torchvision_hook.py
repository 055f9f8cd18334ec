"""The hook is written only where torchvision cannot load, and then mends exactly that."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

# A torchvision that behaves like the CUDA build: it describes its operators to torch as it is
# imported, and torch knows none of them unless somebody defined them.
CUDA_TORCHVISION = """
import torch
for name in ("nms", "qnms"):
    if name not in torch.defined:
        raise RuntimeError(f"operator torchvision::{name} does not exist")
"""
CPU_TORCH = """
defined = []
class version:
    cuda = None
class cuda:
    is_available = staticmethod(lambda: False)
class ops:
    @staticmethod
    def load_library(path):
        raise OSError("libcudart.so.13: cannot open shared object file")
class library:
    class Library:
        def __init__(self, name, kind):
            assert (name, kind) == ("torchvision", "FRAGMENT")
        def define(self, schema):
            defined.append(schema.partition("(")[0])
"""


class Interpreter:
    """A bare virtual environment with packages that this test wrote."""

    def __init__(self, folder: Path, hook: Path, packages: dict[str, str]) -> None:
        venv.create(folder, with_pip=False)
        self.hook = hook
        self.python = folder / "bin" / "python"
        (self.site,) = (folder / "lib").glob("python*/site-packages")
        for name, source in packages.items():
            (self.site / name).mkdir()
            (self.site / name / "__init__.py").write_text(source)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def install(self) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.hook), "install")

    @property
    def written(self) -> list[str]:
        return sorted(path.name for path in self.site.glob("_torchvision*"))


@pytest.fixture
def hook(repository: Path) -> Path:
    return repository / "environment" / "torchvision_hook.py"


def test_a_cuda_torchvision_beside_cpu_torch_loads_after_install(
    tmp_path: Path, hook: Path
) -> None:
    interpreter = Interpreter(tmp_path, hook, {"torch": CPU_TORCH, "torchvision": CUDA_TORCHVISION})
    assert interpreter.run("-c", "import torchvision").returncode != 0
    assert interpreter.install().returncode == 0
    assert interpreter.written == [
        "_torchvision_beside_cpu_torch.pth",
        "_torchvision_beside_cpu_torch.py",
    ]
    done = interpreter.run("-c", "import torchvision, torch; print(torch.defined)")
    assert done.stdout.strip() == "['nms', 'qnms']", done.stderr


def test_looking_for_torchvision_without_importing_it_does_not_import_torch(
    tmp_path: Path, hook: Path
) -> None:
    """datasets and transformers only ask whether torchvision is there, at import time."""
    interpreter = Interpreter(tmp_path, hook, {"torch": CPU_TORCH, "torchvision": CUDA_TORCHVISION})
    interpreter.install()
    code = (
        "import importlib.util, sys; print(importlib.util.find_spec('torchvision') is not None,"
        " 'torch' in sys.modules)"
    )
    assert interpreter.run("-c", code).stdout.split() == ["True", "False"]


def test_a_torchvision_that_loads_gets_no_hook_and_an_old_hook_goes(
    tmp_path: Path, hook: Path
) -> None:
    interpreter = Interpreter(tmp_path, hook, {"torch": CPU_TORCH, "torchvision": CUDA_TORCHVISION})
    interpreter.install()
    (interpreter.site / "torchvision" / "__init__.py").write_text("version = 'a CPU build'")
    done = interpreter.install()
    assert (done.returncode, interpreter.written) == (0, [])


def test_without_torchvision_there_is_nothing_to_do(tmp_path: Path, hook: Path) -> None:
    interpreter = Interpreter(tmp_path, hook, {})
    done = interpreter.install()
    assert (done.returncode, interpreter.written) == (0, [])


def test_a_torchvision_broken_otherwise_is_reported_and_left_alone(
    tmp_path: Path, hook: Path
) -> None:
    broken = {"torch": CPU_TORCH, "torchvision": "raise ImportError('numpy is too old')"}
    interpreter = Interpreter(tmp_path, hook, broken)
    done = interpreter.install()
    assert (done.returncode, interpreter.written) == (1, [])
    assert "numpy is too old" in done.stderr


def test_a_cuda_torch_is_left_to_load_its_own_operators(tmp_path: Path, hook: Path) -> None:
    cuda_torch = CPU_TORCH.replace("cuda = None", "cuda = '13.0'")
    interpreter = Interpreter(
        tmp_path, hook, {"torch": cuda_torch, "torchvision": CUDA_TORCHVISION}
    )
    done = interpreter.install()
    assert (done.returncode, interpreter.written) == (1, [])
    assert "does not exist" in done.stderr


def test_this_environment_reads_pixels_through_torchvision() -> None:
    """Whatever builds are installed here, the official processors' resizing works."""
    code = (
        "import torch, torchvision.transforms.v2.functional as f;"
        "print(tuple(f.resize(torch.zeros(3, 8, 8, dtype=torch.uint8), [4, 4]).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(3, 4, 4)", done.stderr
