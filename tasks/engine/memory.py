"""Peak memory of a piece of work, on the host and on a GPU.

Host: the peak of the resident bytes of the process while the work runs, with what the process held before. Linux keeps this
peak and resets it on request; elsewhere there is no figure. (`ru_maxrss` does not serve: it is the peak of a process' whole
life, so a stage would be given the peak of an earlier one.) Processes that the work starts, such as a data loader's, add the
most that they held alone, read once a second; memory that they share counts once.

GPU: the peak of the bytes of torch's tensors on one GPU, without CUDA's context and torch's reserve.

Pieces of work on threads of one process share its memory: each is given the peak of the process during its own time. A value
that cannot be read is None; no reading fails the work.
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
    """The peak of a whole that is built from pieces: that of the largest piece, on the host and on one GPU. The whole has no
    host figure where a piece has none; a piece without a GPU figure has used no GPU."""
    return Peak(host_bytes=_of_all(max, [peak.host_bytes for peak in peaks]), gpu_bytes=_largest_gpu(peaks))


def measured_by_processes(peaks: Sequence[Peak]) -> None:
    """Tell the watch around this call that other processes did the work, and which peak each of them measured. The work's
    host figure is their sum, or this process' peak where that is more; its GPU figure is the largest."""
    watch = _current.get()
    if watch is not None:
        watch.reported = list(peaks)


class MemoryWatch:
    """Measures while its block runs; `peak` is there when the block has ended. `gpu`: the block computes on a GPU."""

    def __init__(self, gpu: bool) -> None:
        self.peak, self.reported = Peak(), list[Peak]()
        self.host: list[int | None] = []  # peak of each stretch of the block's time
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
        self.peak = self._with_team(own) if self.reported else self._with_children(own)

    def _with_team(self, own: Peak) -> Peak:
        process_group = _of_all(sum, [peak.host_bytes for peak in self.reported])
        return Peak(host_bytes=_of_all(max, [own.host_bytes, process_group]), gpu_bytes=_largest_gpu([own, *self.reported]))

    def _with_children(self, own: Peak) -> Peak:
        return own.model_copy(update={"host_bytes": _of_all(sum, [own.host_bytes, self._children.most])})


# A process has one peak of resident memory. So a watch that begins or ends closes a stretch of time for all watches: each open
# one is given the peak of the stretch, and the next stretch begins at the memory held then.
_watches: list[MemoryWatch] = []
_lock = threading.Lock()
_current: ContextVar[MemoryWatch | None] = ContextVar("memory_watch", default=None)


def _close_stretch() -> None:
    host, gpu = _attempt(_host_peak), _attempt(_gpu_peak)
    for watch in _watches:
        watch.host.append(host)
        watch.gpu.append(gpu)


def _begin_stretch() -> None:
    """Where the peak cannot be reset, it would be that of earlier work: the watches then have none."""
    host, gpu = _attempt(_reset_host), _attempt(_reset_gpu)
    for watch in _watches:
        watch.host.append(host)
        watch.gpu.append(gpu)


def _after_fork() -> None:
    """A child has no part in its parent's watches, and another thread may have held the lock at the fork."""
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
    """Ids of this process' children, their children, and so on."""
    processes: set[int] = set()
    pending = [os.getpid()]
    while pending:
        for listed in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            children = set(map(int, (_attempt(listed.read_text) or "").split())) - processes
            processes |= children
            pending += children
    return processes


def _held_alone(pid: int) -> int:
    """Resident bytes that a process shares with no other; 0 when it has ended."""
    file = Path(f"/proc/{pid}/smaps_rollup")
    return _attempt(lambda: _bytes_in(file, "Private_Clean") + _bytes_in(file, "Private_Dirty")) or 0


def _bytes_in(file: Path, field: str) -> int:
    """A field of one of the kernel's files that give kilobytes."""
    match = re.search(rf"^{field}:\s+(\d+) kB", file.read_text(), re.M)
    if match is None:
        raise ValueError(f"{file} has no {field}")
    return 1024 * int(match[1])


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
