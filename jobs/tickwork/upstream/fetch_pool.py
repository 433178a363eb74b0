"""Threads that fetch while the job commits; they end with the pass, within a fraction of a second."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from tickwork.contract.outcomes import Interrupted
from tickwork.contract.runner import Pass
from tickwork.contract.stop import Stop

T = TypeVar("T")
_POLL_SECONDS = 0.1


class FetchPool(Generic[T]):
    """At most `size` calls at once. Use as a context manager.

    What they call must end soon after `stop` is requested, which is done when the block is left, for whatever reason.
    """

    def __init__(self, size: int, one_pass: Pass, stop: Stop) -> None:
        self.size = size
        self.busy = 0
        """Calls whose result was not taken yet."""
        self._pass = one_pass
        self._stop = stop
        self._pool = ThreadPoolExecutor(size, "fetch")
        self._done: queue.SimpleQueue[Future[T]] = queue.SimpleQueue()

    def __enter__(self) -> FetchPool[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # In this order, so that no thread that is free now begins what is still to be made.
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._stop.request("the pass is over")
        self._pool.shutdown(wait=True)

    def start(self, call: Callable[[], T]) -> None:
        """Have a thread make this call."""
        self.busy += 1
        self._pool.submit(call).add_done_callback(self._done.put)

    def next(self) -> T:
        """The result of a call that has ended, whichever is first; raises what it raised.

        Raises Interrupted when a stop is requested, or the pass's time is up, before there is one.
        """
        while True:
            if self._pass.stop.requested:
                raise Interrupted(self._pass.stop.reason)
            try:
                future = self._done.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if bound := self._pass.budget.exhausted():
                    raise Interrupted(bound) from None
                continue
            self.busy -= 1
            return future.result()
