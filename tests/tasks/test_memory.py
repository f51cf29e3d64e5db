"""Peak memory of a piece of work: its own and nothing of what came before, over threads, parts and other processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.engine import memory
from tasks.engine.memory import MemoryWatch, Peak, largest, measured_by_processes
from tests.conftest import ROOT

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux measures, other systems do not")


@linux
def test_what_measures_holds_in_a_process_of_its_own():
    """A test process that holds gigabytes from other tests gives and takes more than these tests ask for."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/tasks/memory_alone.py"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_whole_has_no_figure_where_a_piece_has_none():
    a, b = Peak(host_bytes=5, gpu_bytes=1), Peak(host_bytes=3, gpu_bytes=2)
    assert largest([a, b, Peak(host_bytes=1)]) == Peak(host_bytes=5, gpu_bytes=2)
    assert largest([a, Peak()]) == Peak(host_bytes=None, gpu_bytes=1) and largest([]) == Peak()


def test_processes_that_measure_themselves_are_summed():
    told = [Peak(host_bytes=10**15, gpu_bytes=7), Peak(host_bytes=2 * 10**15, gpu_bytes=9)]
    for peaks, expected in ((told, Peak(host_bytes=3 * 10**15, gpu_bytes=9)), ([*told, Peak()], Peak(gpu_bytes=9))):
        with MemoryWatch(gpu=False) as watch:
            measured_by_processes(peaks)
        assert watch.peak == (expected if Path("/proc/self/clear_refs").exists() else Peak(gpu_bytes=9))
    measured_by_processes(told)  # nobody measures: nothing happens


def test_work_that_fails_leaves_no_watch_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), MemoryWatch(gpu=False) as watch:
        1 / 0  # noqa: B018
    assert memory._watches == [] and memory._current.get() is None
    assert not watch._children._thread.is_alive() or watch._children.ended.is_set()


def test_torch_is_not_imported_to_measure():
    code = (
        "import sys\nfrom tasks.engine.memory import MemoryWatch\n"
        "with MemoryWatch(gpu=True) as watch: pass\nassert 'torch' not in sys.modules and watch.peak.gpu_bytes == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_gpus_peak_is_that_of_the_block():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    peaks = []
    for side in (1, 5000, 1):
        with MemoryWatch(gpu=True) as watch:
            torch.zeros(side, side, device="cuda")
        peaks.append(watch.peak.gpu_bytes)
    assert peaks[1] >= 4 * 5000**2 > peaks[2]
