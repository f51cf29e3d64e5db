"""A tiny run that nothing disturbed, with its changes, and the server that makes others like it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.attempt_server import Attempt, AttemptServer, Ended
from tests.faults.file_layer import Change, read_log
from tests.faults.targets import Target, stage_of, targets

__all__ = ["Scene", "small_scene"]


@dataclass(frozen=True)
class Scene:
    """`whole` is the undisturbed run's store, `changes` what it changed."""

    server: AttemptServer
    whole: Path
    changes: list[Target]
    folder: Path

    def attempt(
        self, store: Path, target: Target | None = None, kinds: int = 0, keep: str = "", **environment: str
    ) -> tuple[Ended, list[Change]]:
        """Run the chain in `store`, up to the target's stage and with its action, or to the end → how it ended, and its log."""
        log = str(self.folder / "log")
        attempt = Attempt(str(store), log, keep, kinds=kinds, environment=environment)
        if target is not None:
            attempt = Attempt(
                str(store), log, keep, stage_of(target.place) or "report", target.place, target.change, target.action,
                target.error, kinds, environment,
            )  # fmt: skip
        return self.server.run(attempt), read_log(Path(log))


@contextmanager
def small_scene(folder: Path) -> Iterator[Scene]:
    """A scene in `folder`."""
    whole, output, log = folder / "whole", folder / "attempt.out", folder / "log"
    server = AttemptServer(Attempt(str(whole), str(log)), output)
    try:
        changes = read_log(log)
        assert changes[-1].place == "end", output.read_text()
        assert not [change for change in changes if change.kind == "mmap"], "bytes are written past the layer"
        yield Scene(server, whole, targets(changes), folder)
    finally:
        server.close()
