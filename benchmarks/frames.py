"""Frames of a step's clips: decoded, out of the cache, and read while the step before computes.

    python benchmarks/frames.py [--clips 16] [--frames 300] [--repeats 3]

Steps take the pixels of their clips one after another, as the trainer does: without a cache, with a
cache that has them, and without one but asked for a step ahead (`FrameLoader.prefetch`), while a
step computes. Computing is a sleep here, as it is for the processor when a GPU computes. Ways take
turns; median seconds that a step waits for its clips, and ratios, are printed as JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WAYS = ("decoded", "cached", "read ahead")
PER_STEP = 4


def waits(way: str, root: Path, cache: Path, options: argparse.Namespace) -> list[float]:
    """Seconds that each step but the first, which nothing can go before, waits for its clips."""
    from media.sampling import FrameSpec
    from schemas.questions import MediaRef
    from train.data.frame_loader import FrameLoader

    refs = [MediaRef(kind="video", path=f"{number}.mp4") for number in range(options.clips)]
    steps = [refs[first : first + PER_STEP] for first in range(0, len(refs), PER_STEP)]
    waited = []
    with FrameLoader(
        root,
        spec=FrameSpec("uniform:16", max_pixels=128 * 28 * 28),
        cache_dir=cache if way == "cached" else None,
        reader="pyav",
    ) as loader:
        loader.load(refs[0])  # the decoder processes start
        for number, step in enumerate(steps):
            began = time.perf_counter()
            for ref in step:
                loader.load(ref)
            waited.append(time.perf_counter() - began)
            if way == "read ahead" and number + 1 < len(steps):
                loader.prefetch(steps[number + 1])
            time.sleep(options.compute_seconds)
    return waited[1:]


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All ways, and what they come to."""
    from helpers.training_world import write_clip

    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "clips", Path(folder) / "cache"
        for number in range(options.clips):
            write_clip(
                root / f"{number}.mp4",
                num_frames=options.frames,
                rate=30,
                size=(360, 640),
                seed=number,
            )
        waits("cached", root, cache, options)  # fills the cache
        for _ in range(options.repeats):
            for way in WAYS:
                seconds[way].append(statistics.median(waits(way, root, cache, options)))
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    return {
        "settings": vars(options) | {"clips of a step": PER_STEP},
        "median seconds that a step waits": {way: round(s, 4) for way, s in medians.items()},
        "of each turn": {way: [round(s, 4) for s in values] for way, values in seconds.items()},
        "over decoding": {way: round(s / medians["decoded"], 3) for way, s in medians.items()},
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--frames", type=int, default=300, help="frames of a clip's file")
    parser.add_argument("--compute-seconds", type=float, default=3.0, help="of a step")
    parser.add_argument("--repeats", type=int, default=3, help="turns that count")
    print(json.dumps(benchmark(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
