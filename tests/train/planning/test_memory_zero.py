"""What each of two processes holds under DeepSpeed's ZeRO, as it is planned: by the real one."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.replays import rl_world
from helpers.training_world import tiny_model_folder
from helpers.vllm_servers import ENGINES, need_engines
from helpers.zero_bytes import BUCKET, CASES

import train.planning.memory as planning
from train.modeling.loading import load_policy
from train.planning.job import Job, Prompt
from train.planning.memory import memory
from train.planning.model_sizes import sizes_of

pytestmark = [pytest.mark.heavy, pytest.mark.campaign, pytest.mark.timeout(1600)]

PROGRAM = Path(__file__).parents[2] / "helpers" / "zero_bytes.py"


def job_of(name: str) -> Job:
    case = CASES[name]
    return Job(
        sizes=sizes_of(load_policy(tiny_model_folder("qwen2.5-vl"), device="cpu")),
        prompt=Prompt(98, 48),
        group_size=3,
        tokens=12,
        groups=1,
        groups_drawn=1,
        needs_reference=True,
        trains_tower=not case.freeze,
        checkpoints=False,
        is_mixed=bool(case.trl.get("bf16")),
        weight_bytes=None,
        lora_rank=4 if case.lora else 0,
    )


@pytest.mark.parametrize("stage", [2, 3])
def test_each_process_holds_its_planned_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    need_engines()
    monkeypatch.setattr(planning, "BUCKET", BUCKET)
    rl_world(tmp_path / "world").loader.close()
    paths = f"{PROGRAM.parents[2]}{os.pathsep}{PROGRAM.parents[1]}"
    done = subprocess.run(
        [str(ENGINES / "bin" / "python"), str(PROGRAM), str(stage), str(tmp_path), *CASES],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for rank in (0, 1):
        for name, found in torch.load(tmp_path / f"{rank}.pt").items():
            planned = dict(memory(job_of(name), f"zero{stage}", 2).parts.items())
            parts = ["weights", "gradients", "optimizer", "reference", "gathered"]
            if not job_of(
                name
            ).is_mixed:  # then ZeRO-2 keeps all of a tensor of which it has a part
                parts.remove("gradients")
            for part in parts:
                assert planned[part] == pytest.approx(found[part], rel=0.1), (name, rank, part)
