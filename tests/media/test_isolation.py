"""Decoder processes: what hangs or dies costs one file; nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers.folders import TESTS
from helpers.media_clips import make_clip

from media.decoding import DecodeJob
from media.frames import EncodedFrames, MediaError
from media.isolation import DecoderPool
from media.paths import FileState
from media.sampling import FrameSpec
from schemas.samples import Reason

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("short") / "short.mp4", num_frames=3)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 640 x 480 that takes some seconds to decode and to encode, every frame of it."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (480, 640, 3), np.uint8) for _ in range(24)]
    return make_clip(
        tmp_path_factory.mktemp("long") / "long.avi",
        "mjpeg",
        pictures=[pictures[i % 24] for i in range(500)],
        pixel_format="yuvj444p",
    )


def job(path: Path, policy: str = "uniform:3") -> DecodeJob:
    return DecodeJob(
        real_path=str(path),
        root=None,
        state=FileState.of(path.stat()),
        media_id="video-test",
        kind="video",
        spec=FrameSpec(policy),
        reader="pyav",
    )


@pytest.fixture
def pool() -> Iterator[Callable[..., DecoderPool]]:
    pools = []

    def make(
        timeout_seconds: float = 60, workers: int = 1, start_seconds: float = 60
    ) -> DecoderPool:
        pools.append(DecoderPool(workers, timeout_seconds, ["pyav"], start_seconds))
        return pools[-1]

    yield make
    for made in pools:
        made.close()


def decoders() -> list[psutil.Process]:
    """This process' decoder processes."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]


def decoder_reading(path: Path, within_seconds: float = 30) -> psutil.Process:
    """The decoder process that has the file open, once there is one."""
    end = time.monotonic() + within_seconds
    while time.monotonic() < end:
        for process in decoders():
            try:
                if any(file.path == str(path) for file in process.open_files()):
                    return process
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.005)
    raise AssertionError(f"no process opened {path}")


def refusal(future: "Future[EncodedFrames]") -> MediaError:
    with pytest.raises(MediaError) as caught:
        future.result(timeout=100)
    return caught.value


def test_a_file_that_takes_too_long_is_given_up(
    pool: Callable[..., DecoderPool], long_clip: Path, short_clip: Path
) -> None:
    decoders_of = pool(timeout_seconds=1.5)
    start = time.monotonic()
    error = refusal(decoders_of.submit(job(long_clip, "fps:30,max=500")))
    assert error.reason is Reason.DECODE_TIMEOUT
    assert "1.5 s" in error.detail
    assert time.monotonic() - start < 30
    assert len(decoders_of.submit(job(short_clip)).result(timeout=60)) == 3


def test_a_decoder_that_hangs_is_killed(
    pool: Callable[..., DecoderPool], long_clip: Path, short_clip: Path
) -> None:
    decoders_of = pool(timeout_seconds=3)
    future = decoders_of.submit(job(long_clip, "fps:30,max=500"))
    hung = decoder_reading(long_clip)
    hung.suspend()
    assert refusal(future).reason is Reason.DECODE_TIMEOUT
    assert not hung.is_running()
    assert len(decoders_of.submit(job(short_clip)).result(timeout=60)) == 3


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_decoder_that_dies_costs_only_its_file(
    pool: Callable[..., DecoderPool], long_clip: Path, short_clip: Path, signal_number: int
) -> None:
    decoders_of = pool(workers=2)
    dying = decoders_of.submit(job(long_clip, "fps:30,max=500"))
    process = decoder_reading(long_clip)
    others = [decoders_of.submit(job(short_clip)) for _ in range(3)]
    process.send_signal(signal_number)
    error = refusal(dying)
    assert error.reason is Reason.DECODER_DIED
    assert signal.Signals(signal_number).name in error.detail
    assert [len(other.result(timeout=60)) for other in others] == [3, 3, 3]
    assert len(decoders_of.submit(job(short_clip)).result(timeout=60)) == 3


def test_a_decoder_that_dies_between_files_costs_none(
    pool: Callable[..., DecoderPool], short_clip: Path
) -> None:
    decoders_of = pool()
    for _ in range(3):
        assert len(decoders_of.submit(job(short_clip)).result(timeout=60)) == 3
        for process in decoders():
            process.kill()


@pytest.mark.slow
def test_a_decoder_that_hangs_between_files_is_replaced(
    pool: Callable[..., DecoderPool], short_clip: Path
) -> None:
    decoders_of = pool(timeout_seconds=5, start_seconds=5)
    assert len(decoders_of.submit(job(short_clip)).result(timeout=60)) == 3
    for process in decoders():
        process.suspend()
    assert len(decoders_of.submit(job(short_clip)).result(timeout=60)) == 3


def test_a_process_is_replaced_after_a_number_of_files(
    pool: Callable[..., DecoderPool], short_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What decoders hold on to goes with their process."""
    monkeypatch.setattr("media.isolation._FILES_PER_PROCESS", 3)
    decoders_of = pool()
    seen = set()
    for _ in range(8):
        assert len(decoders_of.submit(job(short_clip)).result(timeout=60)) == 3
        seen |= {process.pid for process in decoders()}
    assert len(seen) >= 3
    assert len(decoders()) <= 2  # the last one may be about to end


def test_closing_leaves_no_process_even_while_one_decodes(
    pool: Callable[..., DecoderPool], long_clip: Path
) -> None:
    decoders_of = pool(workers=2)
    futures = [decoders_of.submit(job(long_clip, "fps:30,max=500")) for _ in range(4)]
    decoder_reading(long_clip)
    start = time.monotonic()
    decoders_of.close()
    assert time.monotonic() - start < 20
    assert decoders() == []
    assert all(future.done() for future in futures)


_PROGRAM = """
import pathlib, sys
sys.path[:0] = {paths!r}
from helpers.media_clips import decode_here
from test_isolation import job
from media.isolation import DecoderPool
print("the program runs")
pool = DecoderPool(1, 60, ["pyav"])
print(len(pool.submit(job(pathlib.Path({clip!r}))).result()), flush=True)
{rest}
"""


def program(short_clip: Path, rest: str) -> str:
    here = Path(__file__).resolve().parent
    return _PROGRAM.format(paths=[str(TESTS), str(here)], clip=str(short_clip), rest=rest)


def test_a_program_on_standard_input_without_a_main_guard_runs_once(short_clip: Path) -> None:
    """Bug seen: spawned processes run the main program again, or fail where it has no file."""
    done = subprocess.run(
        [sys.executable, "-"],
        input=program(short_clip, "pool.close()"),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines() == ["the program runs", "3"]
    assert done.stderr == ""


def test_decoders_end_with_a_program_that_is_killed(short_clip: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(program(short_clip, "import time; time.sleep(600)"))
        running.stdin.close()
        assert running.stdout.readline() == "the program runs\n"
        assert running.stdout.readline() == "3\n"
        children = psutil.Process(running.pid).children(recursive=True)
        assert children
        os.kill(running.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_a_decoder_process_imports_no_heavy_library_of_other_rooms(
    pool: Callable[..., DecoderPool], short_clip: Path
) -> None:
    decoders_of = pool()
    decoders_of.submit(job(short_clip)).result(timeout=60)
    (process,) = decoders()
    loaded = {Path(entry.path).name for entry in process.memory_maps()}
    assert any("libavcodec" in name for name in loaded)
    assert not {name for name in loaded if "torch" in name or "duckdb" in name}
