"""Refining a large photo asks for a bounded amount of memory, whatever its size: measured in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

MIB = 2**20
MAX_GROWTH = 1024 * MIB  # of a process over what it held after its imports
SOAK = (("voc", 1), ("voc", 12), ("voc", 24), ("coco", 24))  # million pixels
measures = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux measures, other systems do not")


def _measured(megapixels, preset, last, *settings):
    command = [sys.executable, "-m", "tests.faults.large_photos_alone", str(megapixels), preset, last, *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@measures
def test_a_large_photo_is_refined_in_bounded_memory(soak, figures):
    """In a sample one photo and few iterations, whose number does not count for memory."""
    if soak:
        runs = [_measured(size, preset, "refine") for preset, size in SOAK]
    else:
        few = ("refine.par.iterations=5", "refine.crf.iterations=0", "cams.image_size=64")
        runs = [_measured(4, "voc", "refine", *few)]
    figures("large_photos", runs=runs)
    for run in runs:
        for stage in ("dataset", "cams", "refine"):
            growth = run["stages"][stage]["peak"] - run["before"]
            assert growth < MAX_GROWTH, (run["megapixels"], stage, growth)
