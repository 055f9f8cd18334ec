"""A model server without a model: the real protocols, written replies, and faults on demand.

    python tests/servers/model_server.py --port 0 --log requests.jsonl --replies replies.jsonl

prints one JSON line with its port and speaks Anthropic Messages (`/v1/messages`, `/count_tokens`,
`/batches`) and OpenAI chat completions. `GET /control` tells the counts, `POST /control` changes
`latency_ms`, `rates`, `final`, `seed`, `retry_after`, `script`, `batch_seconds`, `batch_order`,
`batch_max_requests`, `batch_max_bytes`, `max_in_flight`, `replies` (rules), `end_batches`,
`end_hangs` and `reset` while it runs.
See `replies.py` for rules and token counts, `faults.py` for the kinds of faults.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from servers.app import ModelServer
from servers.faults import FaultPlan
from servers.replies import load_brain
from servers.wire import serve

TEST_KEY = "sk-test-0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class RunningServer:
    """A server in a process of its own. `url` is what ANTHROPIC_BASE_URL takes."""

    url: str
    log_path: Path
    process: Popen[str]

    @property
    def openai_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"{self.url}/v1"

    def control(self, **changes: Any) -> dict[str, Any]:
        """Change the server's behaviour (see the module's docstring); returns its counts."""
        data = json.dumps(changes).encode() if changes else None
        request = urllib.request.Request(f"{self.url}/control", data=data)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from error

    def reset(self) -> None:
        """As if just started: waits for what earlier clients left behind, then forgets it all."""
        while self.control(end_hangs=True)["in_flight"]:
            time.sleep(0.02)
        self.control(reset=True)
        os.truncate(self.log_path, 0)

    def requests(self, path: str | None = None) -> list[dict[str, Any]]:
        """The log so far, of one path if given; one object per request, in order of their ends."""
        lines = self.log_path.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return [record for record in records if path is None or record["path"] == path]


@contextlib.contextmanager
def running_server(log_path: Path | None = None, **options: Any) -> Iterator[RunningServer]:
    """Start a server process and stop it after; options are the command's (`latency_ms=320`)."""
    with tempfile.TemporaryDirectory() as folder:
        log_path = log_path or Path(folder) / "requests.jsonl"
        command = [sys.executable, __file__, "--port", "0", "--log", str(log_path)]
        for name, value in options.items():
            if value is None:
                continue
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            command += [f"--{name.replace('_', '-')}", text]
        with Popen(command, stdout=PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"the model server did not start: {' '.join(command)}")
                yield RunningServer(json.loads(line)["url"], log_path, process)
            finally:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except TimeoutExpired:
                    process.kill()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    add("--log", type=Path, help="append one JSON line per request to this file")
    add("--replies", type=Path, help="JSON lines of reply rules (see replies.py)")
    add("--brain", help="module:function that answers what no rule matches")
    add("--python-path", type=Path, help="folder to import the brain's module from")
    add("--dump-images", type=Path, help="folder to write each image's bytes to, by hash")
    add("--api-key", help="the only key to accept; without it any key is")
    add("--models", default="", help="comma-separated models to know; without it all are")
    add("--latency-ms", type=float, default=0.0, help="wait before each completion")
    add("--max-in-flight", type=int, help="answer 429 beyond so many requests at once")
    add("--seed", type=int, default=0, help="seed of the faults")
    add("--rates", type=json.loads, default={}, help='JSON, e.g. {"rate_limit": 0.2}')
    add("--final", default="refused", help="comma-separated kinds that hit all attempts of a body")
    add("--retry-after", default="0", help="header of drawn 429 and 529; 'none' leaves it out")
    add("--batch-seconds", type=float, default=0.0, help="how long a batch takes")
    add("--batch-order", choices=("given", "reversed", "shuffled"), default="given")
    return parser


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    if options.python_path is not None:
        sys.path.insert(0, str(options.python_path))
    plan = FaultPlan(seed=options.seed, final=frozenset(filter(None, options.final.split(","))))
    plan.retry_after = None if options.retry_after == "none" else options.retry_after
    plan.set_rates(options.rates)
    if options.dump_images is not None:
        options.dump_images.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        log = None
        if options.log is not None:
            log = stack.enter_context(options.log.open("a", encoding="utf-8"))
        app = ModelServer(
            load_brain(options.replies, options.brain),
            plan,
            log=log,
            dump_images=options.dump_images,
            api_key=options.api_key,
            models=frozenset(filter(None, options.models.split(","))),
            latency_ms=options.latency_ms,
            max_in_flight=options.max_in_flight,
        )
        app.batches.seconds = options.batch_seconds
        app.batches.order = options.batch_order
        server = await serve(app.handle, options.port)
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"port": port, "url": f"http://127.0.0.1:{port}"}), flush=True)
        stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        await stop.wait()
        server.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    asyncio.run(run(_options().parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
