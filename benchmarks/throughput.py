"""Our call layer against a bare asyncio client of the same SDK, on the same server, in one run.

    python benchmarks/throughput.py [--calls 1600] [--repeats 5]

A local server answers after 320 ms; 32 calls are in flight. Judge calls are text only, generation
calls carry 16 cached frames. Both sides take turns; medians, ratios and the processor time of this
process per call are printed as JSON. The bare client does no caching, retrying, budgeting or
recording: it is the ceiling.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import anthropic
from helpers.build_world import make_world
from servers.model_server import TEST_KEY, running_server

from judges.backends.budget import Budget
from judges.backends.calls import CallLimits, Calls
from judges.backends.prices import Prices
from judges.backends.registry import open_backend
from judges.sufficiency import sufficiency_request
from media.frames import EncodedFrames
from media.sampling import FrameSpec
from media.store import FrameStore
from pipeline.steps import StepSettings, generation_request
from schemas.annotations.reader import read_questions
from schemas.ledger.ledger import Ledger
from schemas.questions import MediaRef, VideoQuestion
from schemas.runs import start_run

LATENCY_MS, IN_FLIGHT = 320, 32
MODEL = "claude-haiku-5-5"
OBSERVATION = "Based on the question, I need to notice the thing. At 1 s, object {0} rolls by. " * 3

Job = Callable[[int], Awaitable[object]]


async def timed(job: Job, calls: int) -> dict[str, float]:
    """Calls per second and processor milliseconds per call with 32 workers in flight."""
    numbers = iter(range(calls))

    async def worker() -> None:
        for number in numbers:
            await job(number)

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    seconds = time.perf_counter() - started
    return {
        "calls_per_second": calls / seconds,
        "cpu_ms_per_call": (time.process_time() - cpu) * 1000 / calls,
    }


async def compare(
    kind: str,
    request_of: Callable[[int], Awaitable[Any]],
    folder: Path,
    *,
    calls: int,
    repeats: int,
) -> dict[str, Any]:
    """Alternate bare and ours; every repeat asks new questions, so no cache of ours answers."""
    bare_client = anthropic.AsyncAnthropic(api_key=TEST_KEY, max_retries=0)
    backend = await open_backend(f"claude:{MODEL}")
    runs: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
    run = start_run("throughput", {})
    with Ledger.open(folder / f"{kind}.duckdb", run) as ledger:
        layer = Calls(
            backend,
            ledger,
            limits=CallLimits(max_concurrency=IN_FLIGHT),
            prices=Prices.load(),
            budget=Budget(None),
            run_id=run.run_id,
        )
        for repeat in range(repeats + 1):
            first = repeat * calls

            async def bare(number: int, first: int = first) -> None:
                request = await request_of(first + number)
                await bare_client.messages.create(
                    model=MODEL, max_tokens=request.max_tokens, messages=[_message(request)]
                )

            async def ours(number: int, first: int = first) -> None:
                await layer.call(await request_of(first + number))

            results = {"bare": await timed(bare, calls), "ours": await timed(ours, calls)}
            if repeat:  # the first turn warms connections and caches
                for name, result in results.items():
                    runs[name].append(result)
    await backend.aclose()
    await bare_client.close()
    ratios = [
        ours["calls_per_second"] / bare["calls_per_second"]
        for ours, bare in zip(runs["ours"], runs["bare"], strict=True)
    ]
    return {
        name: {
            figure: round(statistics.median(result[figure] for result in results), 3)
            for figure in results[0]
        }
        for name, results in runs.items()
    } | {
        "ratio ours/bare": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "calls": calls,
        "ceiling_calls_per_second": IN_FLIGHT / (LATENCY_MS / 1000),
    }


def _message(request: Any) -> anthropic.types.MessageParam:
    content: list[Any] = [
        {"type": "text", "text": part.text}
        if hasattr(part, "text")
        else {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": part.media_type,
                "data": base64.standard_b64encode(part.data).decode(),
            },
        }
        for part in request.parts
    ]
    return {"role": "user", "content": content}


async def benchmark(calls: int, repeats: int) -> dict[str, Any]:
    """Both comparisons."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = make_world(folder / "world", 60)
        questions = [row for row in read_questions(source) if isinstance(row, VideoQuestion)]
        clips = [question for question in questions if question.data_type == "video"]
        frames = FrameStore(folder / "world", spec=FrameSpec(), cache_dir=folder / "frames")
        settings = StepSettings(generator="", judge="")

        async def judge_request(number: int) -> Any:
            question = questions[number % len(questions)]
            return sufficiency_request(question, OBSERVATION.format(number))[0]

        async def generate_request(number: int) -> Any:
            question = clips[number % len(clips)].model_copy(
                update={"problem": f"Question {number}: what is to be seen?"}
            )
            ref = MediaRef(kind="video", path=question.media[0].path)
            clip: EncodedFrames = await frames.load(ref)
            assert len(clip.jpegs) == 16
            return generation_request(question, [clip], settings, attempt=0)[0]

        with running_server(folder / "log.jsonl", latency_ms=LATENCY_MS) as server:
            os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_API_KEY"] = server.url, TEST_KEY
            report = {
                "in_flight": IN_FLIGHT,
                "latency_ms": LATENCY_MS,
                "judge": await compare(
                    "judge", judge_request, folder, calls=calls, repeats=repeats
                ),
                "generate, 16 cached frames": await compare(
                    "generate", generate_request, folder, calls=calls // 4, repeats=repeats
                ),
            }
        frames.close()
    return report


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1600, help="judge calls per turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(benchmark(options.calls, options.repeats)), indent=1))


if __name__ == "__main__":
    main()
