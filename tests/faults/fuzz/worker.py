"""Mutated files read in a process that nothing may leave: `python -m tests.faults.fuzz.worker INPUTS SEED [READER…]`.

Imports happen once; each reader then gets a fork with a limit of memory and an audit hook. A line of JSON tells of each reader.
"""

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.faults.fuzz.mutations import mutate
from tests.faults.fuzz.reader import Reader
from tests.faults.fuzz.store_readers import STORE_READERS
from tests.faults.fuzz.user_readers import USER_READERS
from tests.faults.fuzz.weight_readers import WEIGHT_READERS

READERS = (*USER_READERS, *WEIGHT_READERS, *STORE_READERS)

MEMORY = 2**30  # bytes beyond what a process has that has imported everything
SECONDS = 30  # for one input, on a slow machine
STARTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "ctypes.dlopen", "pty.spawn")
CONNECTS = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "urllib.Request")
CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MAX_FAILURES = 20  # told of one reader


class _Watch:
    """What a reader does besides reading: processes, connections, changes outside its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.events = str(folder), False, list[str]()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        outside = not any(str(part).startswith(self.folder) for part in arguments[:2])
        if event.startswith((*STARTS, *CONNECTS)) or (event.startswith(CHANGES) and outside):
            self.events.append(f"{event} {arguments!r}"[:200])
        elif event == "open" and outside and arguments[0] != os.devnull and int(arguments[2] or 0) & WRITES:
            self.events.append(f"open for writing {arguments[0]!r}"[:200])


def _files(reader: Reader, folder: Path) -> list[Path]:
    return [path for pattern in reader.files for path in sorted(folder.glob(pattern)) if path.is_file()]


def _check(reader: Reader, inputs: int, seed: int) -> dict[str, Any]:
    """Read `inputs` mutated folders → what went wrong."""
    from excel_core.errors import ExcelError

    with tempfile.TemporaryDirectory() as name:
        valid, folder = Path(name, "valid"), Path(name, "input")
        valid.mkdir()
        reader.make(valid)
        files = _files(reader, valid)
        seeds = {path: path.read_bytes() for path in files}
        assert files, reader.name
        shutil.copytree(valid, folder)
        reader.read(folder)  # the valid folder, which also imports what is imported late
        watch, failures, refused = _Watch(Path(name)), [], 0
        _limit_memory()
        for number in range(inputs):
            source = files[number % len(files)]
            data = mutate(f"{seed} {reader.name} {number}", seeds[source], reader.words, list(seeds.values()))
            shutil.rmtree(folder)
            shutil.copytree(valid, folder)
            (folder / source.relative_to(valid)).write_bytes(data)
            signal.alarm(SECONDS)
            watch.on = True
            try:
                reader.read(folder)
            except ExcelError as error:
                refused += 1
                wrong = f"{len(str(error))} characters" if len(str(error)) > 5000 else "" if str(error) else "no words"
            except MemoryError:  # a size in the file that no memory holds; what that is to a run, the executor says
                refused, wrong = refused + 1, ""
            except BaseException as error:
                wrong = "".join(traceback.format_exception(error, limit=-3))[-1500:]
            else:
                wrong = ""
            watch.on = False
            signal.alarm(0)
            wrong = wrong or "; ".join(watch.events)
            watch.events.clear()
            if wrong:
                failures.append({"input": number, "file": source.name, "data": data[:2000].decode("latin-1"), "wrong": wrong})
        return {
            "reader": reader.name,
            "inputs": inputs,
            "refused": refused,
            "failures": failures[:MAX_FAILURES],
            "failed": len(failures),
        }


def _limit_memory() -> None:
    """A reader that asks for more gets MemoryError."""
    used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def _in_fork(reader: Reader, inputs: int, seed: int) -> dict[str, Any]:
    """The same in a process of its own, which may die."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        try:
            signal.signal(signal.SIGALRM, _too_slow)
            os.write(sender, json.dumps(_check(reader, inputs, seed)).encode()[: 10**7])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if answer:
        return dict(json.loads(answer))
    return {
        "reader": reader.name,
        "inputs": inputs,
        "failed": 1,
        "failures": [{"wrong": f"the process died with status {status}"}],
    }


def _too_slow(*_: Any) -> None:
    raise TimeoutError(f"no end after {SECONDS} s")


def main(inputs: int, seed: int, names: list[str]) -> None:
    """A line of JSON for each reader."""
    warnings.simplefilter("ignore")
    for module in ("flows.local.state", "tasks.history.run_record", "excel_core.prediction.trained_segmenter"):
        import_module(module)  # before the fork, once for all

    for reader in READERS:
        if not names or reader.name in names:
            print(json.dumps(_in_fork(reader, inputs, seed)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
