"""Ctrl-C: the run stops, says what is kept and how to go on, and its servers and workers outlive it by no second.

A terminal sends SIGINT to every process that the command started. What the flow needs in order to end well (Prefect's
server, to be told; Dask's workers, to be ended without a word) is therefore started where the signal does not reach.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

from prefect.settings import get_current_settings

from flows.local.temporary import end_temporary_server, start_temporary_server
from flows.named_server import require_named_server

__all__ = ["STOPPED", "leave", "out_of_reach", "stoppable"]

T = TypeVar("T")
STOPPED = "stopped. Finished stages and shards are kept, and training its last checkpoint; the same command goes on from there"


@contextmanager
def stoppable(home: Path) -> Iterator[None]:
    """Around a flow that a command runs: Ctrl-C ends it with a message and exit status 130. Where no Prefect server is named,
    one is started that ends with this process; `home` is the folder of its database. ServerError where one is named that does
    not answer."""
    try:
        require_named_server()
        if not get_current_settings().api.url:
            out_of_reach(lambda: start_temporary_server(home))
        yield
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr, flush=True)
        leave(130)


def out_of_reach(start: Callable[[], T]) -> T:
    """The result of `start`, run in a thread that blocks SIGINT: threads and processes inherit that from the one that
    starts them, across exec too."""
    pool = ThreadPoolExecutor(1, initializer=signal.pthread_sigmask, initargs=(signal.SIG_BLOCK, {signal.SIGINT}))
    try:
        return pool.submit(start).result()
    finally:
        pool.shutdown(wait=False)  # a Ctrl-C meanwhile does not wait for it


def leave(status: int) -> NoReturn:
    """End this process at once with that exit status, and the server that it started by itself. The flow run's state is with
    the server, the record is on disk; at a usual end Prefect would still send the last lines of its log, for seconds."""
    end_temporary_server(wait=False)
    sys.stdout.flush()
    os._exit(status)
