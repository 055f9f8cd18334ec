"""An event loop in a thread of its own: calls go on while the training thread computes.

loop = BackgroundLoop("judge")
future = loop.start(ask(question))     # returns at once
value = loop.run(ask(question))        # waits
loop.close()
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

_T = TypeVar("_T")

# How long `close` waits for work that is cancelled, and for the thread.
_CANCEL_SECONDS = 1.0
_JOIN_SECONDS = 3.0


class BackgroundLoop:
    """Runs coroutines in a daemon thread. Close it, or use it in a `with` statement."""

    def __init__(self, name: str) -> None:
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be started any more."""
        return self._is_closed

    def start(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        """Begin a coroutine and return at once. Raises RuntimeError when closed."""
        if self.is_closed:
            work.close()
            raise RuntimeError(f"{self._thread.name} is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of a coroutine, once it is there."""
        return self.start(work).result()

    def close(self) -> None:
        """Stop the loop and its thread; what still runs is cancelled.

        A function that blocks the thread is left behind in it: a daemon thread keeps no process.
        """
        if self.is_closed:
            return
        self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop)
        self._thread.join(_JOIN_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _cancel(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
        self._loop.stop()
