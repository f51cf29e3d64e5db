"""A Dask worker is killed at a shard of a given number: no test depends on how fast its workers are."""

import os
import signal
import sys
import time
from pathlib import Path

from distributed import Client

from tests.part_begun import PartBegun

__all__ = ["kill_at_second_shard"]

PATIENCE = 120  # seconds


def kill_at_second_shard(client: Client, victim: str, kind: str, killed: Path) -> None:
    """SIGKILL to the worker at address `victim` when it begins its second part of stage `kind`; `killed` is then there. Every
    other worker waits for that at its third, so that enough are left for the victim."""
    others = [address for address in client.scheduler_info(n_workers=-1)["workers"] if address != victim]
    client.run(_at_shard, 2, kind, killed, _die, workers=[victim])
    client.run(_at_shard, 3, kind, killed, _wait, workers=others)


def _at_shard(number, kind, killed, act):  # type: ignore[no-untyped-def]
    """Call `act` before this process begins its `number`th part."""
    is_there = PartBegun(kind, number)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if is_there(event, arguments) and not killed.exists():
            act(killed)

    sys.addaudithook(hook)  # there is no way to remove one; it does nothing once `killed` is there


def _die(killed: Path) -> None:
    killed.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def _wait(killed: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not killed.exists():
        assert time.monotonic() < deadline, "the victim began no second shard"
        time.sleep(0.01)
