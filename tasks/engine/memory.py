"""Peak memory of a piece of work, on the host and on a GPU.

Host: resident bytes of the process that works, at their peak while the work runs, with what the process held before. Linux
keeps this peak and begins it anew when asked to; elsewhere there is no figure. (`ru_maxrss` is none: it is the peak of the
whole life of a process, so a stage would be given what an earlier one took.) Processes that were started meanwhile, such as a
data loader's, add the most that they held alone, as readings every second saw it; what they share counts once.

GPU: bytes of torch's tensors on one GPU, at their peak; CUDA's own context and what torch keeps in reserve are not in it.

Pieces of work that run at once on threads of one process share its memory: each is given the peak of the process while it
ran itself. What cannot be read is None; no reading fails the work.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

__all__ = ["MemoryWatch", "Peak", "largest", "measured_by_processes"]

PAUSE = 1.0  # seconds between two readings of other processes, or
REST = 100  # times as long as a reading takes, so that they cost a hundredth of a core
T = TypeVar("T")


class Peak(BaseModel):
    """Bytes on the host and on one GPU. Host: None where it was not measured; GPU: also where none was used."""

    model_config = ConfigDict(frozen=True)

    host_bytes: int | None = None
    gpu_bytes: int | None = None


def largest(peaks: Sequence[Peak]) -> Peak:
    """The peak of a whole that is built from pieces: the maximum of one piece, on the host and on one GPU. One piece without
    a host figure, and there is none for the whole; a piece without a GPU figure has used no GPU."""
    return Peak(host_bytes=_of_all(max, [peak.host_bytes for peak in peaks]), gpu_bytes=_largest_gpu(peaks))


def measured_by_processes(peaks: Sequence[Peak]) -> None:
    """Tell the watch around this call that other processes did the work, each with the peak that it measured itself. The
    work's host figure is the sum over them (this process', where that is more), its GPU figure the maximum of one GPU."""
    watch = _current.get()
    if watch is not None:
        watch.told = list(peaks)


class MemoryWatch:
    """Measures while its block runs; `peak` is there when the block has ended. `gpu`: the block computes on a GPU."""

    def __init__(self, gpu: bool) -> None:
        self.peak, self.told = Peak(), list[Peak]()
        self.host: list[int | None] = []  # highest of each stretch of the block's time
        self.gpu: list[int | None] = []
        self._on_gpu = gpu
        self._children = _Children()

    def __enter__(self) -> "MemoryWatch":
        self._token = _current.set(self)
        with _lock:
            _close_stretch()
            _watches.append(self)
            _begin_stretch()
        _attempt(self._children.start)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _current.reset(self._token)
        with _lock:
            _close_stretch()
            if self in _watches:  # not where a process was forked within the block
                _watches.remove(self)
            _begin_stretch()
        self._children.end()
        own = Peak(host_bytes=_of_all(max, self.host), gpu_bytes=_of_all(max, self.gpu) if self._on_gpu else None)
        self.peak = self._with_team(own) if self.told else self._with_children(own)

    def _with_team(self, own: Peak) -> Peak:
        team = _of_all(sum, [peak.host_bytes for peak in self.told])
        return Peak(host_bytes=_of_all(max, [own.host_bytes, team]), gpu_bytes=_largest_gpu([own, *self.told]))

    def _with_children(self, own: Peak) -> Peak:
        return own.model_copy(update={"host_bytes": _of_all(sum, [own.host_bytes, self._children.most])})


# The highest resident size is one number a process, so a watch that begins or ends closes a stretch of time for all of them:
# each open one is given the peak of the stretch, and the next stretch begins at what is held then.
_watches: list[MemoryWatch] = []
_lock = threading.Lock()
_current: ContextVar[MemoryWatch | None] = ContextVar("memory_watch", default=None)


def _close_stretch() -> None:
    host, gpu = _attempt(_host_peak), _attempt(_gpu_peak)
    for watch in _watches:
        watch.host.append(host)
        watch.gpu.append(gpu)


def _begin_stretch() -> None:
    """Where a peak cannot begin anew it would be that of earlier work: the watches then have none."""
    host, gpu = _attempt(_reset_host), _attempt(_reset_gpu)
    for watch in _watches:
        watch.host.append(host)
        watch.gpu.append(gpu)


def _after_fork() -> None:
    """What this process measures is not its child's to end, and another thread may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _watches.clear()


os.register_at_fork(after_in_child=_after_fork)


def _host_peak() -> int:
    return _bytes_in(Path("/proc/self/status"), "VmHWM")


def _reset_host() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return 0


def _gpu_peak() -> int:
    """Of the GPU that holds most; 0 where this process has used none. torch is not imported to find out."""
    cuda = _cuda()
    return max(map(cuda.max_memory_allocated, range(cuda.device_count()))) if cuda else 0


def _reset_gpu() -> int:
    if cuda := _cuda():
        for device in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(device)
    return 0


def _cuda() -> Any:
    """torch.cuda where it is in use, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


class _Children:
    """Reads, on a thread of its own, what processes hold that were started below this one since `start`."""

    def __init__(self) -> None:
        self.most = 0  # bytes that they held alone at one reading
        self._before: set[int] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True, name="memory of other processes")

    def start(self) -> None:
        self._before = _descendants()
        self._thread.start()

    def end(self) -> None:
        self._ended.set()

    def _read(self) -> None:
        pause = PAUSE
        while not self._ended.wait(pause):
            started = time.perf_counter()
            held = _attempt(lambda: sum(map(_held_alone, _descendants() - self._before)))
            self.most = max(self.most, held or 0)
            pause = max(PAUSE, REST * (time.perf_counter() - started))


def _descendants() -> set[int]:
    """Ids of the processes that this one started, and of those that they did."""
    found: set[int] = set()
    pending = [os.getpid()]
    while pending:
        for listed in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            born = set(map(int, (_attempt(listed.read_text) or "").split())) - found
            found |= born
            pending += born
    return found


def _held_alone(pid: int) -> int:
    """Resident bytes that a process shares with no other; 0 when it has ended."""
    file = Path(f"/proc/{pid}/smaps_rollup")
    return _attempt(lambda: _bytes_in(file, "Private_Clean") + _bytes_in(file, "Private_Dirty")) or 0


def _bytes_in(file: Path, field: str) -> int:
    """A field of one of the kernel's files that give kilobytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", file.read_text(), re.M)
    if found is None:
        raise ValueError(f"{file} has no {field}")
    return 1024 * int(found[1])


def _attempt(read: Callable[[], T]) -> T | None:
    """What `read` returns, None where it fails: the files of /proc may be missing, closed to us or gone, and a GPU in trouble
    fails the work itself, in its own words."""
    try:
        return read()
    except Exception:
        return None


def _of_all(combine: Callable[[Iterable[int]], int], values: Iterable[int | None]) -> int | None:
    """`combine` of values that are all known; None where one is not, or where there is none."""
    known = list(values)
    return combine([value or 0 for value in known]) if known and None not in known else None


def _largest_gpu(peaks: Sequence[Peak]) -> int | None:
    return max((peak.gpu_bytes for peak in peaks if peak.gpu_bytes is not None), default=None)
