"""What several test rings share: small seeded models, and where the real data and goldens are."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same number of threads here and in every process that a test starts: sums over threads end in other last bits.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import flows  # noqa: F401  sets OpenMP's wait policy, so before torch

import torch  # isort: skip

# Before anything imports Prefect: a patient, silent, local server.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

ROOT = Path(__file__).parent.parent
THREADS = {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
SHARED = ROOT.parent / "shared"
VOC = SHARED / "data" / "VOC2012"
needs_photos = pytest.mark.skipif(not VOC.is_dir(), reason="the real VOC photos are not beside the repository")

settings.register_profile("no times", deadline=None)  # a slow machine is no failure
settings.load_profile("no times")

# Settings that make the demo small enough for a test.
SMALL_DEMO = [
    "dataset.train_scenes=12",
    "dataset.val_scenes=4",
    "train.iterations=4",
    "train.batch_size=2",
    "train.dynamic_from=2",
    "train.own_argmax_from=3",
    "train.segmenter.width=16",
    "predict.scales=[0.7, 1.0]",
    "shards.images=4",
    "refine.par.iterations=4",
    "report.gallery_images=2",
]


@pytest.fixture(autouse=True)
def _number_of_threads():
    """Dask's nannies set these variables in the process that starts them, for good."""
    yield
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.pop(name, None)
    os.environ.update(THREADS)


def small_clip_model(seed: int = 0, quick_gelu: bool = True) -> Any:
    """A seeded open_clip model: 4 blocks, width 32, 2 heads, patch 8, joint width 16."""
    from open_clip.model import CLIP

    cam_model = {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    torch.manual_seed(seed)
    return CLIP(16, cam_model, text, quick_gelu=quick_gelu)


@pytest.fixture(scope="session")
def small_clip() -> Any:
    """`small_clip_model` as a FrozenClip."""
    import open_clip

    from excel_core.models.clip import FrozenClip

    return FrozenClip(small_clip_model(), open_clip.SimpleTokenizer(), "small")


@pytest.fixture
def image_batch() -> torch.Tensor:
    """(2, 3, 48, 48) seeded normal noise: 6 x 6 patches, another grid than the model's 4 x 4."""
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
