"""Peak memory of a piece of work, on the host and on a GPU.

Host: the peak of the resident bytes of the process while the work runs, with what the process held before. Processes that the
work starts, such as a data loader's, add the most that they held alone, read once a second; memory that they share counts once.
GPU: the peak of the bytes of torch's tensors on one GPU, without CUDA's context and torch's reserve.

Pieces of work on threads of one process share its memory: each gets the peak of the process during its own time. A value that
cannot be read is None; no reading fails the work.
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

import psutil
from pydantic import BaseModel, ConfigDict

__all__ = ["MemoryWatch", "Peak", "largest", "measured_by_processes"]

MIN_PAUSE = 1.0  # seconds between two readings of other processes, or
PAUSE_PER_READING = 100  # times as long as a reading takes, so that readings cost a hundredth of a core
T = TypeVar("T")


class Peak(BaseModel):
    """Bytes on the host and on one GPU. Host: None where it was not measured; GPU: also where none was used."""

    model_config = ConfigDict(frozen=True)

    host_bytes: int | None = None
    gpu_bytes: int | None = None


def largest(peaks: Sequence[Peak]) -> Peak:
    """The peak of a whole that is built from pieces: that of the largest piece, on the host and on one GPU. The whole has no
    host figure where a piece has none; a piece without a GPU figure has used no GPU."""
    return Peak(host_bytes=_if_all_known(max, [peak.host_bytes for peak in peaks]), gpu_bytes=_largest_gpu(peaks))


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
            _note_for_all(_host_peak, _gpu_peak)
            _watches.append(self)
            _note_for_all(_reset_host, _reset_gpu)
        _attempt(self._children.start)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _current.reset(self._token)
        with _lock:
            _note_for_all(_host_peak, _gpu_peak)
            if self in _watches:  # not where a process was forked within the block
                _watches.remove(self)
            _note_for_all(_reset_host, _reset_gpu)
        self._children.ended.set()
        host = _if_all_known(max, self.host)
        gpu = _if_all_known(max, self.gpu) if self._on_gpu else None
        if self.reported:
            of_processes = _if_all_known(sum, [peak.host_bytes for peak in self.reported])
            host = _if_all_known(max, [host, of_processes])
            gpu = _largest_gpu([Peak(gpu_bytes=gpu), *self.reported])
        else:
            host = _if_all_known(sum, [host, self._children.max_bytes])
        self.peak = Peak(host_bytes=host, gpu_bytes=gpu)


# A process has one peak of resident memory. So a watch that begins or ends closes a stretch of time for all watches: each open
# one is given the peak of the stretch, and the next stretch begins at the memory held then.
_watches: list[MemoryWatch] = []
_lock = threading.Lock()
_current: ContextVar[MemoryWatch | None] = ContextVar("memory_watch", default=None)


def _note_for_all(read_host: Callable[[], int], read_gpu: Callable[[], int]) -> None:
    """Read a stretch's peak, or 0 where it is reset. A reset that fails is noted as None: the watches have no figure then,
    since the next peak would be that of earlier work."""
    host, gpu = _attempt(read_host), _attempt(read_gpu)
    for watch in _watches:
        watch.host.append(host)
        watch.gpu.append(gpu)


def _after_fork() -> None:
    """A child has no part in its parent's watches, and another thread may have held the lock at the fork."""
    global _lock
    _lock = threading.Lock()
    _watches.clear()


os.register_at_fork(after_in_child=_after_fork)


# psutil knows no peak of resident memory on Linux. `ru_maxrss` is the peak of a process' whole life, so that a stage would have
# that of an earlier one. The kernel's own peak is read instead, and reset on request; other systems have no figure.
def _host_peak() -> int:
    [kilobytes] = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
    return 1024 * int(kilobytes)


def _reset_host() -> int:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return 0


def _gpu_peak() -> int:
    """Of the GPU that holds most; 0 where this process has used none."""
    cuda = _cuda()
    return max(map(cuda.max_memory_allocated, range(cuda.device_count()))) if cuda else 0


def _reset_gpu() -> int:
    if cuda := _cuda():
        for device in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(device)
    return 0


def _cuda() -> Any:
    """torch.cuda where it is in use, else None. torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


class _Children:
    """Reads, on a thread of its own until `ended`, what processes hold that were started below this one since `start`."""

    def __init__(self) -> None:
        self.max_bytes = 0  # that they held alone at one reading
        self.ended = threading.Event()
        self._earlier: set[psutil.Process] = set()
        self._thread = threading.Thread(target=self._read, daemon=True, name="memory of other processes")

    def start(self) -> None:
        self._earlier = _descendants()
        self._thread.start()

    def _read(self) -> None:
        pause = MIN_PAUSE
        while not self.ended.wait(pause):
            started = time.perf_counter()
            processes = (_attempt(_descendants) or set()) - self._earlier
            self.max_bytes = max(self.max_bytes, sum(map(_held_alone, processes)))
            pause = max(MIN_PAUSE, PAUSE_PER_READING * (time.perf_counter() - started))


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _held_alone(process: psutil.Process) -> int:
    """Resident bytes that a process shares with no other; 0 when it has ended."""
    return _attempt(lambda: int(process.memory_full_info().uss)) or 0


def _attempt(read: Callable[[], T]) -> T | None:
    """What `read` returns, None where it fails: files of /proc may be missing or closed to us, a process may be gone, and a GPU
    in trouble fails the work itself, in its own words."""
    try:
        return read()
    except Exception:
        return None


def _if_all_known(combine: Callable[[Iterable[int]], int], values: Sequence[int | None]) -> int | None:
    """`combine` of the values; None where one of them is, or where there is none."""
    known_values = [value for value in values if value is not None]
    return combine(known_values) if known_values and len(known_values) == len(values) else None


def _largest_gpu(peaks: Sequence[Peak]) -> int | None:
    return max((peak.gpu_bytes for peak in peaks if peak.gpu_bytes is not None), default=None)
