"""Weights in this process: `local:<folder>` or `local:<hub id>`, through transformers.

Requests are gathered into batches by a queue and generated in a thread of its own. Greedy unless
`temperature` asks for sampling. `trust_remote_code` is never set: a model that brings code does not
load. Penalties in the model's own `generation_config.json` stay in force.
"""

import asyncio
import logging
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from judges.backends.base import (
    BackendInfo,
    BackendUnavailableError,
    CallError,
    ChatRequest,
    FinalError,
    Reply,
    StopReason,
    TextPart,
    Usage,
    call_key,
)
from judges.backends.model_files.identity import weights_id
from judges.backends.registry import BackendOptions, refuse_unusable

if TYPE_CHECKING:
    from judges.backends.local_model import Generated, LocalModel, RowSampling

log = logging.getLogger(__name__)

_LINGER_SECONDS = 0.02
_SEED_BITS = 63
# What a chat template, a processor or a forward pass raises for a request it cannot take.
_GENERATION_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, OSError)
_TOKENS_PER_REQUEST = 64
_TOKENS_PER_PART = 16
_SMALLEST_PATCH = 14


async def open_backend(rest: str, *, spec: str, options: BackendOptions) -> "LocalBackend":
    """Load `local:<folder or hub id>`; raises BackendUnavailableError when it cannot be."""
    refuse_unusable(spec)
    # torch and transformers: only what is there is worth waiting for them
    from judges.backends.local_model import LocalModel

    worker = ThreadPoolExecutor(1, thread_name_prefix="local-model")
    loop = asyncio.get_running_loop()
    try:
        folder = await loop.run_in_executor(worker, find_folder, rest)
        endpoint = await loop.run_in_executor(worker, weights_id, folder)
        model = await loop.run_in_executor(worker, LocalModel, folder, options.device)
    except BaseException:
        worker.shutdown(wait=False)
        raise
    info = BackendInfo(
        spec=spec,
        provider="local",
        model=rest,
        endpoint=endpoint,
        takes_sampling=frozenset({"temperature", "top_p", "seed"}),
        takes_images=model.takes_images,
    )
    return LocalBackend(info, model, worker, batch_size=options.local_batch_size)


def find_folder(name: str) -> Path:
    """The folder of a model: `name` itself, or the hub's snapshot of it (downloaded if need be)."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(name, ignore_patterns=["*.gguf", "*.pth", "*.onnx", "*.h5"]))
    except (  # an ImportError, where a SOCKS proxy is named and its package is missing
        HFValidationError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OSError,
        ImportError,
        ValueError,
    ) as error:
        words = " ".join(str(error).split())[:300]
        raise BackendUnavailableError(
            f"local:{name}: there is no such folder, and the hub does not give it: {words}"
        ) from error


_Entry = tuple[ChatRequest, "asyncio.Future[Generated]"]


class LocalBackend:
    """One model; concurrent callers fill its batches."""

    def __init__(
        self,
        info: BackendInfo,
        model: "LocalModel",
        worker: ThreadPoolExecutor,
        *,
        batch_size: int = 8,
    ) -> None:
        self.info = info
        self.batch_size = batch_size
        self._model = model
        self._worker = worker
        self._waiting: deque[_Entry] = deque()
        self._running: list[_Entry] = []
        self._arrival = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def complete(self, request: ChatRequest) -> Reply:
        """Generate once, batched with the other waiting requests."""
        if request.images and not self.info.takes_images:
            raise FinalError(f"{self.info.spec} is a text model: it takes no images")
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._serve())
            self._pump.add_done_callback(self._pump_ended)
        done: asyncio.Future[Generated] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, done))
        self._arrival.set()
        row = await done
        return Reply(
            text=row.text,
            stop=StopReason.END if row.is_ended else StopReason.MAX_TOKENS,
            usage=Usage(input_tokens=row.input_tokens, output_tokens=row.output_tokens),
            model=self.info.model,
        )

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """Input tokens by the model's own tokenizer and processor."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._worker, self._model.count_tokens, request)
        except (*_GENERATION_ERRORS, jinja2.TemplateError) as error:
            raise self._final(error) from error

    def worst_case_tokens(self, request: ChatRequest) -> tuple[int, int]:
        """Upper bounds of (input, output) tokens, without running the tokenizer."""
        tokens = _TOKENS_PER_REQUEST + len(request.system.encode("utf-8", "surrogatepass"))
        for part in request.parts:
            tokens += _TOKENS_PER_PART
            if isinstance(part, TextPart):
                tokens += len(part.text.encode("utf-8", "surrogatepass"))
            else:
                columns = math.ceil(part.width / _SMALLEST_PATCH)
                tokens += columns * math.ceil(part.height / _SMALLEST_PATCH)
        return tokens, request.max_tokens

    async def aclose(self) -> None:
        """Let the running batch end, and drop the others."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        await asyncio.to_thread(self._worker.shutdown)

    async def _serve(self) -> None:
        """Take batches from the queue for ever; a batch that is not full lingers a little."""
        while True:
            await self._arrival.wait()
            if len(self._waiting) < self.batch_size:
                await asyncio.sleep(_LINGER_SECONDS)
            self._running = self._take_batch()
            if self._running:
                await self._run(self._running)
            if not self._waiting:
                self._arrival.clear()

    def _pump_ended(self, pump: asyncio.Task[None]) -> None:
        """Pass the error of a failed pump to all its callers."""
        error = None if pump.cancelled() else pump.exception()
        for _, done in (*self._running, *self._waiting):
            if done.done():
                continue
            if error is None:
                done.cancel()
            else:
                done.set_exception(error)
        self._waiting.clear()
        self._pump = None

    def _take_batch(self) -> list[_Entry]:
        """The longest waiting requests, all with images or all without."""
        batch: list[_Entry] = []
        others: list[_Entry] = []
        while self._waiting and len(batch) < self.batch_size:
            entry = self._waiting.popleft()
            if entry[1].cancelled():
                continue
            fits = not batch or bool(batch[0][0].images) == bool(entry[0].images)
            (batch if fits else others).append(entry)
        self._waiting.extendleft(reversed(others))
        return batch

    async def _run(self, batch: list[_Entry]) -> None:
        """Generate; a batch that fails is halved until the request at fault stands alone."""
        from judges.backends.local_model import is_out_of_memory, release_memory

        requests = [request for request, _ in batch]
        loop = asyncio.get_running_loop()
        try:
            samplings = [self._sampling(request) for request in requests]
            rows = await loop.run_in_executor(
                self._worker, self._model.generate, requests, samplings
            )
        except (*_GENERATION_ERRORS, jinja2.TemplateError) as error:
            ran_out_of_memory = is_out_of_memory(error)
            if len(batch) == 1:
                self._fail(batch[0][1], self._final(error))
                return
            half = (len(batch) + 1) // 2
            if ran_out_of_memory and half < self.batch_size:
                self.batch_size = half
                log.warning(
                    "%s: out of memory with %d requests at once; going on with %d",
                    self.info.spec,
                    len(batch),
                    half,
                )
        else:
            for (_, done), row in zip(batch, rows, strict=True):
                if not done.done():
                    done.set_result(row)
            return
        if ran_out_of_memory:
            release_memory()  # only here: the failed pass's frames have let go of it
        await self._run(batch[:half])
        await self._run(batch[half:])

    def _sampling(self, request: ChatRequest) -> "RowSampling | None":
        """How to sample; the seed follows from the request's content and its number of repeat."""
        from judges.backends.local_model import RowSampling

        sampling = dict(request.sampling)
        temperature = sampling.get("temperature", 0.0)
        if temperature <= 0:
            return None
        seed = int(call_key(self.info, request).rpartition("-")[2], 16) % (1 << _SEED_BITS)
        return RowSampling(temperature, sampling.get("top_p", 1.0), seed)

    def _fail(self, done: "asyncio.Future[Generated]", error: CallError) -> None:
        if not done.done():
            done.set_exception(error)

    def _final(self, error: Exception) -> FinalError:
        words = " ".join(str(error).split())[:500]
        return FinalError(f"{self.info.spec} cannot answer this request: {words}")
