"""Our plugin inside of vLLM: positions of dense clips, its own and ours, computed by its code."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.vllm_servers import ENGINES, need_engines

from train.modeling.rope_positions import qwen2_5_positions
from train.rollouts.vllm.plugin import apart_positions

# first token, cells, rows and columns of tokens, positions per cell; text before, between, behind
SECONDS = (0.25, 0.7, 1 / 3, 0.5, 1.0, 10.0)
CELLS, HEIGHT, WIDTH = 9, 2, 3
BEFORE, BETWEEN, BEHIND = 4, 2, 5

PROGRAM = """
import json, os, sys
from types import SimpleNamespace
from train.rollouts.vllm.plugin import register
register()
register()  # vLLM may call it more than once in a process
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration as Model
for length, media in json.loads(sys.argv[1]):
    model = SimpleNamespace(iter_mm_grid_thw=lambda features, media=media: map(tuple, media))
    positions, delta = Model.get_mrope_input_positions(model, [0] * length, [])
    print("positions", json.dumps([positions.tolist(), delta]))
"""


def prompt(seconds: float) -> tuple[int, list[tuple[int, int, int, int, float]]]:
    """A still, and a clip whose cells are so many seconds long; as vLLM lists them."""
    step = float(torch.tensor(seconds)) * 2
    clip = BEFORE + HEIGHT * WIDTH + BETWEEN
    media = [(BEFORE, 1, HEIGHT, WIDTH, 1.0), (clip, CELLS, HEIGHT, WIDTH, step)]
    return clip + CELLS * HEIGHT * WIDTH + BEHIND, media


def ours(seconds: float, *, apart: bool) -> torch.Tensor:
    size = HEIGHT * WIDTH
    kinds = [0] * BEFORE + [1] * size + [0] * BETWEEN + [2] * CELLS * size + [0] * BEHIND
    return qwen2_5_positions(
        torch.tensor(kinds),
        image_grid_thw=torch.tensor([[1, 2 * HEIGHT, 2 * WIDTH]]),
        video_grid_thw=torch.tensor([[CELLS, 2 * HEIGHT, 2 * WIDTH]]),
        seconds_per_cell=[seconds],
        tokens_per_second=2,
        merge_size=2,
        apart=apart,
    )


@pytest.mark.parametrize("seconds", SECONDS)
def test_cells_apart_are_those_of_the_trainer(seconds: float) -> None:
    found = torch.from_numpy(apart_positions(*prompt(seconds)))
    assert torch.equal(found, ours(seconds, apart=True))


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize("option", ["released", "apart"])
def test_vllms_own_code_gives_the_trainers_positions(option: str, repository: Path) -> None:
    """Released ones without our doing, also where seconds fall on the border of a position."""
    need_engines()
    done = subprocess.run(
        [str(ENGINES / "bin" / "python"), "-c", PROGRAM, json.dumps([*map(prompt, SECONDS)])],
        cwd=repository,
        env={"OMP_NUM_THREADS": "1", "P2R_ROPE_POSITIONS": option, "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("positions ")]
    assert len(lines) == len(SECONDS)
    for seconds, line in zip(SECONDS, lines, strict=True):
        positions, delta = json.loads(line.removeprefix("positions "))
        expected = ours(seconds, apart=option == "apart")
        assert torch.equal(torch.tensor(positions), expected), seconds
        assert delta == int(expected.max()) + 1 - expected.shape[1]
