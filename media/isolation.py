"""Decoder processes: a file that hangs or kills its decoder costs that file, and nothing else.

Each worker is a pool of one process (pebble), so that no other worker shares its pipes or locks:
what a dying process leaves behind is thrown away with its pool.
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from queue import SimpleQueue

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from media.decoding import DecodeJob, ReaderName, decode, import_readers
from media.frames import EncodedFrames, MediaError
from media.spawning import BareSpawnContext
from schemas.samples import Reason

# FFmpeg and decord hold on to memory over many files; a fresh process does not have it.
_FILES_PER_PROCESS = 200
# How long a process may take to start and to take its job, apart from the limit for the file.
_START_SECONDS = 60.0
_ATTEMPTS_TO_START = 3


class DecoderPool:
    """`workers` processes that decode, started when they are first needed."""

    def __init__(
        self,
        workers: int,
        timeout_seconds: float,
        readers: Sequence[ReaderName],
        start_seconds: float = _START_SECONDS,
    ) -> None:
        self._workers = [
            _Worker(timeout_seconds, tuple(readers), start_seconds) for _ in range(workers)
        ]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decoder")

    def submit(self, job: DecodeJob) -> "Future[EncodedFrames]":
        """The frames, or a MediaError, once a worker has read the file."""
        return self._threads.submit(self._run, job)

    def close(self) -> None:
        """Stop all processes; a file that is being read is given up with CancelledError."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=True)

    def _run(self, job: DecodeJob) -> EncodedFrames:
        worker = self._idle.get()
        try:
            return worker.decode(job)
        finally:
            self._idle.put(worker)


class _Worker:
    """One decoder process at a time; one caller at a time."""

    def __init__(
        self, timeout_seconds: float, readers: tuple[ReaderName, ...], start_seconds: float
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._readers = readers
        self._start_seconds = start_seconds
        self._pool: ProcessPool | None = None
        self._future: ProcessFuture[EncodedFrames] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def decode(self, job: DecodeJob) -> EncodedFrames:
        """The frames of `job`, or MediaError; the worker is fit for the next job after either."""
        for _ in range(_ATTEMPTS_TO_START):
            future = self._schedule(job)
            if future is None:
                continue
            try:
                error = future.exception(self._timeout_seconds + self._start_seconds)
            except FutureTimeoutError:
                # pebble enforces the time limit of a job that has begun, unless the process hangs
                # with the pool's lock in its hands.
                has_begun = future.running()
                self._discard()
                if has_begun:
                    raise self._took_too_long() from None
                continue
            if error is None:
                frames: EncodedFrames = future.result()
                return frames
            if isinstance(error, MediaError):
                raise MediaError(error.reason, error.detail)
            if isinstance(error, ProcessExpired):
                raise MediaError(
                    Reason.DECODER_DIED,
                    f"its decoder died ({_exit_words(error.exitcode)})",
                )
            if isinstance(error, BrokenProcessPool):
                self._discard()
                continue
            if isinstance(error, TimeoutError):
                raise self._took_too_long()
            if isinstance(error, CancelledError):
                raise error
            words = " ".join(str(error).split())[:120]
            raise MediaError(
                Reason.UNDECODABLE, f"its decoder stopped with {type(error).__name__}: {words}"
            )
        raise MediaError(
            Reason.DECODER_DIED,
            f"no decoder process took it up in {_ATTEMPTS_TO_START} attempts: does the machine "
            "lack memory?",
        )

    def close(self) -> None:
        """Stop the process, and start none any more."""
        with self._lock:
            self._is_closed = True
            future = self._future
        if future is not None:
            future.cancel()  # pebble leaves those of a stopped pool as they are
        self._discard()

    def _schedule(self, job: DecodeJob) -> "ProcessFuture[EncodedFrames] | None":
        with self._lock:
            if self._is_closed:
                raise CancelledError("the decoders are closed")
            if self._pool is None:
                self._pool = ProcessPool(
                    max_workers=1,
                    max_tasks=_FILES_PER_PROCESS,
                    initializer=_prepare_process,
                    initargs=(self._readers,),
                    context=BareSpawnContext(),
                )
            try:
                self._future = self._pool.schedule(
                    decode, args=(job,), timeout=self._timeout_seconds
                )
                return self._future
            except RuntimeError:  # its process died while it was idle
                pass
        self._discard()
        return None

    def _discard(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    def _took_too_long(self) -> MediaError:
        return MediaError(
            Reason.DECODE_TIMEOUT,
            f"it was not read within {self._timeout_seconds:g} s (--decode-timeout-seconds)",
        )


def _prepare_process(readers: tuple[ReaderName, ...]) -> None:
    """What a decoder process does first: say nothing, leave no core file, end with its parent."""
    import_readers(readers)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # FFmpeg and decord print about broken files past any log level; the MediaError has the reason.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _exit_words(exit_code: int) -> str:
    if exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
