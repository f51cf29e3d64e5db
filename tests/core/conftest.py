"""What several core tests look at: a small CLIP with texts, an untrained segmenter over it, and label maps to export."""

import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.cam_model import CamModel
from excel_core.config import CamSpec, SegmenterSpec
from excel_core.datasets import photo_files
from excel_core.datasets.images import image_formats
from excel_core.datasets.palette import save_labels_png
from excel_core.exports.label_maps import LabelMap
from excel_core.models.segmenter import Segmenter


@pytest.fixture
def cam_model(small_clip):
    """`small_clip` at 48 pixels with seeded texts of three classes and two background prompts."""
    text = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    return CamModel(small_clip, text, 3, CamSpec.model_validate({"image_size": 48, "calibration": {"depth": 2}}))


@pytest.fixture
def segmenter():
    """A seeded segmenter of three classes, in evaluation mode."""
    torch.manual_seed(0)
    return Segmenter(4, 32, 3, SegmenterSpec(width=16, layers=1, heads=2)).eval()


@pytest.fixture
def maps(truth, tmp_path):
    """The label maps of a file's own fixture `truth`, arrays (H, W) by id, as PNGs."""
    for name, labels in truth.items():
        save_labels_png(tmp_path / "maps" / f"{name}.png", labels)
    return [LabelMap(name, tmp_path / "maps" / f"{name}.png", f"{name}.jpg") for name in truth]


@pytest.fixture
def out(tmp_path):
    """An empty folder to export to."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def without_heif(monkeypatch):
    """As where pillow-heif is not installed."""
    monkeypatch.setattr(photo_files, "find_spec", lambda name: None)
    image_formats.cache_clear()
    yield
    image_formats.cache_clear()
