"""Judges of two processes: a device each, and one that hangs ends the run before the other waits
for ever."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from helpers.judged_groups import LIMITS, RULES, group_of
from helpers.process_groups import leave_process_group
from helpers.rollout_scenes import P2R
from servers.model_server import running_server

from judges.backends.local_model import own_device
from judges.backends.retrying import CallLimits
from sandbox.models.tiny_models import save_tiny_model
from train.rewards.group_rewarder import GroupRewarder, JudgePatience, JudgeUnavailableError
from train.rewards.judge_client import JudgeClient
from train.rewards.options import JudgeCallOptions
from train.trainers.distributed import sum_over_processes

TIMEOUT = 0.5
LIMITS_OF_CALLS = CallLimits(max_concurrency=64, retry_base_seconds=0.001, retry_cap_seconds=0.002)
GROUP_TIMEOUT = 60.0


def ask(rank: int, spec: str, folder: Path) -> None:
    """One process: its judge is asked about two observations, in process 1 about `hangs`."""
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "HF_HUB_OFFLINE": "1"}
    torch.distributed.init_process_group(
        "gloo",
        init_method=(folder / "meeting").as_uri(),
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=GROUP_TIMEOUT),
    )
    judge = JudgeClient(
        spec,
        ledger_path=folder / f"judge-{rank}.duckdb",
        media_root=folder,
        options=JudgeCallOptions(timeout_seconds=TIMEOUT, judge_max_tokens=64, retries=0),
        retry_seconds=(0.001, 0.002),
    )
    rewarder = GroupRewarder(
        P2R,
        LIMITS,
        judge,
        patience=JudgePatience(max_pauses=0),
        sum_over_processes=sum_over_processes,
    )
    began = time.monotonic()
    try:
        pending = rewarder.start([group_of("hangs" if rank else "ok", "ok 2")])
        pending.wait()
        words = f"{pending.use.asked} asked, {pending.use.stats.calls} calls"
    except JudgeUnavailableError as error:
        words = str(error)
    (folder / f"{rank}.txt").write_text(f"{time.monotonic() - began}\n{words}", "utf-8")
    rewarder.close()
    judge.close()
    leave_process_group()


@pytest.mark.heavy
@pytest.mark.slow
def test_a_judge_that_hangs_in_one_process_is_given_up_in_both(tmp_path: Path) -> None:
    """One of four observations has no reply, 25 %, in the seconds that `train.rl` counts with."""
    with running_server() as server:
        script = [{"match": "hangs", "faults": ["hang"] * 9}]
        server.control(replies=RULES, script=script)
        spec = f"openai:judge@{server.openai_url}"
        torch.multiprocessing.spawn(ask, args=(spec, tmp_path), nprocs=2)
    expected = LIMITS_OF_CALLS.seconds_of_silence(TIMEOUT)
    assert expected == pytest.approx(9 * TIMEOUT + 0.001 + 7 * 0.002)
    for rank in (0, 1):
        seconds, words = (tmp_path / f"{rank}.txt").read_text("utf-8").split("\n", 1)
        assert words.startswith("no reply of the judge openai:judge@"), words
        assert "on 1 of 4 observations" in words
        # 15 s are for a machine with other work.
        assert float(seconds) < expected + 15
        assert rank == 0 or float(seconds) > 8.9 * TIMEOUT, "process 1 waits for nine attempts"


@pytest.mark.heavy
@pytest.mark.slow
def test_each_of_two_processes_has_a_local_judge_of_its_own(tmp_path: Path) -> None:
    """A random model, whose replies are nonsense; each process makes its two calls itself."""
    model = save_tiny_model("llama", tmp_path / "judge")
    torch.multiprocessing.spawn(ask, args=(f"local:{model}", tmp_path), nprocs=2)
    for rank in (0, 1):
        words = (tmp_path / f"{rank}.txt").read_text("utf-8").split("\n", 1)[1]
        assert words == "2 asked, 2 calls"
        assert (tmp_path / f"judge-{rank}.duckdb").is_file()


def test_silence_is_counted_by_hand() -> None:
    """Nine attempts of two minutes, between them 0.5, 1, 2 ... 32 and 60 seconds; the layer stops
    after ten calls that fail alike, of which four are made at a time: in three rounds."""
    waits = 0.5 + 1 + 2 + 4 + 8 + 16 + 32 + 60
    assert CallLimits(max_concurrency=64).seconds_of_silence(120) == 9 * 120 + waits
    assert CallLimits(max_concurrency=4).seconds_of_silence(120) == 3 * (9 * 120 + waits)


@pytest.mark.parametrize(
    ("num_gpus", "number", "device"),
    [
        (0, "1", "cpu"),
        (2, None, "cuda:0"),
        (2, "0", "cuda:0"),
        (2, "1", "cuda:1"),
        # a launcher that shows each process its own GPU only
        (1, "3", "cuda:0"),
    ],
)
def test_a_local_judge_sits_on_the_gpu_of_its_process(
    num_gpus: int, number: str | None, device: str
) -> None:
    environment = {} if number is None else {"LOCAL_RANK": number}
    assert own_device(num_gpus, environment) == device
