"""How much memory APPO's weights take beyond their inputs; run as a program, for a clean peak.

    python tests/helpers/streaming_memory.py VOCABULARY_SIZE

prints as JSON by how many bytes the largest resident size of the process grew for each streamed
divergence, and then for the plain way, which builds [G, N, V].
"""

import json
import sys
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from train.algorithms.appo import AppoConfig, token_weights, token_weights_from_hidden

ROLLOUTS, TOKENS, FRAMES, WIDTH = 4, 48, 4, 8
DIVERGENCES: tuple[Literal["released", "kl"], ...] = ("released", "kl")


def peak() -> int:
    """Largest resident size of this program; `getrusage` would begin with that of its parent."""
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) * 1024


def main(entries: int) -> None:
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(ROLLOUTS, TOKENS, FRAMES, generator=generator)
    hidden = torch.randn(ROLLOUTS, TOKENS, WIDTH, generator=generator)
    head = torch.randn(entries, WIDTH, generator=generator)
    mask, rewards = torch.ones(ROLLOUTS, TOKENS), torch.ones(ROLLOUTS)

    def stream(divergence: Literal["released", "kl"], weight: Tensor) -> None:
        config = AppoConfig(4, 2, 16, divergence=divergence)
        token_weights_from_hidden(attention, hidden, weight, mask, rewards, config)

    growth = {}
    for divergence in DIVERGENCES:
        stream(divergence, head[:64])  # loads what is loaded on first use
        before = peak()
        stream(divergence, head)
        growth[divergence] = peak() - before
    before = peak()
    logprobs = (hidden @ head.T).log_softmax(dim=-1)
    token_weights(attention, logprobs, mask, rewards, AppoConfig(4, 2, 16))
    growth["plain"] = peak() - before
    print(json.dumps(growth))


if __name__ == "__main__":
    main(int(sys.argv[1]))
