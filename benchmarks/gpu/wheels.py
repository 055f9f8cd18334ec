"""Collect what a GPU machine without network lacks: wheels of less than 40 MB together.

    python benchmarks/gpu/wheels.py [--python-version 3.12] [--also transformers]

What is measured needs the packages of `IMAGE`, which images for training have, and those of
`CARRIED`. No video is decoded and no ledger opened, so decord, PyAV and DuckDB are not among them.
Versions are those of the Python that runs this; `--also` adds packages of which the image has
another version. On the GPU machine:

    python -m pip install --no-index --no-deps --target site out/gpu/wheels/*.whl
    PYTHONPATH=site bash benchmarks/gpu/run.sh
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

IMAGE = (
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "peft",
    "pandas",
    "pyarrow",
    "pillow",
    "jinja2",
    "xxhash",
)
CARRIED = (
    "trl",
    "datasets",
    "dill",
    "multiprocess",
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-extensions",
    "typing-inspection",
    "pebble",
    "tenacity",
)
LARGEST_MB = 40
# pip takes a platform's name exactly.
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def with_requirements(names: Iterable[str]) -> set[str]:
    """The packages and what they require, as far as it is installed here. Normalised names."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
        for requirement in map(Requirement, needed):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return found


def too_large(folder: Path) -> str:
    """Why these wheels should not be carried, in one sentence; empty where they may."""
    sizes = {path.name: path.stat().st_size / 1e6 for path in folder.glob("*.whl")}
    if (total := sum(sizes.values())) < LARGEST_MB:
        return ""
    largest = max(sizes, key=lambda name: sizes[name])
    return (
        f"the wheels in {folder} have {total:.0f} MB together, and less than {LARGEST_MB} MB are"
        f" to be carried: the largest is {largest}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect them; the status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python-version", default="3.12", help="of the GPU machine")
    parser.add_argument("--output-dir", type=Path, default=Path("out/gpu/wheels"))
    parser.add_argument("--also", nargs="+", default=[], metavar="PACKAGE", help="more of them")
    options = parser.parse_args(arguments)
    folder: Path = options.output_dir
    if any(folder.glob("*.whl")):
        print(f"error: {folder} has wheels already: give an empty folder", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation=cp", "-d", str(folder)]
    command += [f"--python-version={options.python_version}"]
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    wanted = [f"{name}=={version(name)}" for name in (*CARRIED, *options.also)]
    subprocess.run([*command, *wanted], check=True)
    if problem := too_large(folder):
        print(f"error: {problem}", file=sys.stderr)
        return 1
    for path in sorted(folder.glob("*.whl")):
        print(f"{path.stat().st_size / 1e6:6.1f} MB  {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
