"""Packages as they were released, unpacked beside the engine tests' environment: for campaigns."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.vllm_servers import ENGINES, need_engines

VERL = ("verl==0.9.1", "omegaconf", "antlr4-python3-runtime==4.9.3", "hydra-core", "tensordict")
VERL_NEEDS = ("pyvers", "torchdata", "codetiming", "orjson", "TransferQueue", "cloudpickle")
# `torchaudio` has wheels for GPUs only; a program that reads no sound puts an empty module there.
LLAMAFACTORY = (
    "llamafactory==0.9.5",
    "omegaconf",
    "antlr4-python3-runtime==4.9.3",
    "fire",
    "termcolor",
    "einops",
    "modelscope",
)
QWEN_VL_UTILS = ("qwen-vl-utils==0.0.14",)
TORCHCODEC = ("torchcodec==0.13.0",)  # the newest whose wheel runs without CUDA
SWIFT = (
    "ms-swift==4.6.0",
    "modelscope",
    "modelscope-hub",
    "dacite",
    "json-repair",
    "binpacking",
    "addict",
)


def unpacked(folder: Path, packages: Sequence[str]) -> Path:
    """A folder with these packages and none of their requirements, from the package index."""
    target = folder / "packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*command, str(target), *packages], check=True, timeout=280)
    return target


def ffmpeg_of_pyav(folder: Path) -> str:
    """A path of libraries on which torchcodec finds PyAV's FFmpeg by its plain names."""
    bundled = next((ENGINES / "lib").glob("python*/site-packages/av.libs"))
    folder.mkdir()
    for library in bundled.glob("lib[as][vw]*.so.*"):
        name, _, version = library.name.partition(".so.")
        plain = f"{name.rpartition('-')[0]}.so.{version.partition('.')[0]}"
        (folder / plain).symlink_to(library)
    return os.pathsep.join([str(folder), str(bundled)])


def run_beside(
    packages: Path, program: str, repository: Path, environment: Mapping[str, str] | None = None
) -> str:
    """What a program prints that sees these packages, this project, torch and Ray."""
    need_engines()
    paths = os.pathsep.join([str(packages), str(repository), str(repository / "tests")])
    done = subprocess.run(
        [str(ENGINES / "bin" / "python"), "-c", program],
        env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
