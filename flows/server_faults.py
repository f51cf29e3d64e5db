"""A Prefect server that dies, hangs or talks nonsense during a run: one line says so, and what is finished stays."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from excel_core.errors import ExcelError
from excel_core.files import first_sentence
from flows.interrupts import leave
from flows.named_server import named_server

__all__ = ["server_faults_named"]

CLIENT = os.path.join("prefect", "client") + os.sep  # a part of the path of Prefect's client, which talks to the server


@contextmanager
def server_faults_named() -> Iterator[None]:
    """Around a flow that a command runs: whatever Prefect's client raises, once its own retries are used up, ends the command
    with a line and exit status 2. Other errors pass. The command does not wait for the log and the events that Prefect still
    has for the server: it would for minutes."""
    try:
        yield
    except ExcelError:
        raise
    except Exception as error:
        if not _of_the_client(error):
            raise
        why = f"{type(error).__name__}: {first_sentence(error)}"
        print(
            f"error: Prefect's server at {named_server() or 'this store'} no longer answers as it should "
            f"({why}); what is finished is kept: when it runs again, give the same command again",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        leave(2)


def _of_the_client(error: BaseException) -> bool:
    """Whether an error, or what led to it, was raised while Prefect's client was at work."""
    links: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in links:
        links.append(cause)
        cause = cause.__cause__ or cause.__context__
    files = (frame.f_code.co_filename for link in links for frame, _ in traceback.walk_tb(link.__traceback__))
    return any(CLIENT in file for file in files)
