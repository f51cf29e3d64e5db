"""The learning curve's label maps, by the core's pieces one after the other, and what a person reads of curve.json."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from artifacts.charts import curve_png, draw_curve
from artifacts.gallery import curve_picture
from artifacts.tables import curve_note, curve_rows
from excel_core.cams.affinity import affinity_cams, scale_attention, upsample_with_background
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.cams.patch_text import patch_text_cams
from excel_core.cams.pseudo_labels import refine_labels
from excel_core.config import RefineSpec, SegmenterSpec
from excel_core.evaluation.curve import labels_by_iteration
from excel_core.models.calibration import calibrated_features, encoder_activations, layer_features
from excel_core.models.clip import FrozenClip
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.inference import segment_single_scale

REFINE = RefineSpec.model_validate(
    {"affinity": {"layers": 3, "threshold": 0.75}, "par": {"iterations": 2}, "crf": {"enabled": False}}
)
CLASSES = (0, 2)


@pytest.fixture
def segmenters():
    found = {}
    for iteration in (10, 20):
        torch.manual_seed(iteration)
        found[iteration] = Segmenter(4, 32, 3, SegmenterSpec(width=16, layers=1, heads=2)).eval()
    return found


@pytest.fixture
def image():
    """(50, 70, 3): a gradient with noise, so that PAR has something to go along."""
    rows, columns = np.mgrid[:50, :70]
    plain = np.stack([rows * 4, columns * 3, 255 - rows * 2], axis=2)
    return np.clip(plain + np.random.default_rng(0).integers(-20, 20, plain.shape), 0, 255).astype(np.uint8)


def _attention_with(probability, path, spec):
    """The published choice of layers in loops: those whose sum of (R̂ - A) is at most the mean sum, averaged, times R̂."""
    scaled = scale_attention(path.attention, 2, spec, REFINE.affinity)[-3:, 0]
    sums = [float((probability - layer).sum()) for layer in scaled]
    chosen = [layer for layer, total in zip(scaled, sums, strict=True) if total <= sum(sums) / len(sums)]
    return torch.stack(chosen).sum(dim=0) / (len(chosen) + 1e-5) * probability


@torch.inference_mode()
def test_labels_are_those_of_the_pieces_one_by_one(cam_model, segmenters, image):
    points = labels_by_iteration(cam_model, segmenters, image, CLASSES, REFINE)
    assert list(points) == [10, 20]
    spec, network_input = cam_model.spec.calibration, cam_model.prepare([image])
    path = encoder_activations(cam_model.clip, network_input, spec, 3)
    calibrated = calibrated_features(cam_model.clip, path, spec)
    static = patch_text_cams(cam_model.clip.project(calibrated), cam_model.text, 3, cam_model.spec).reshape(3, 6, 6)[
        list(CLASSES)
    ]
    guide = F.interpolate(network_input, size=image.shape[:2], mode="bilinear", align_corners=True)
    for iteration, segmenter in segmenters.items():
        unit = F.normalize(segmenter(layer_features(path, calibrated, spec), (6, 6)).features[0].flatten(1), dim=0)
        cosine = unit.T @ unit
        probability = torch.sigmoid(3 * (cosine - cosine.mean()))  # the mean over this image alone
        spread = affinity_cams(static, _attention_with(probability, path, spec), REFINE.affinity)
        maps = pixel_adaptive_refinement(guide, upsample_with_background(spread, image.shape[:2])[None], REFINE.par)[0]
        wanted = np.array([0, 1, 3])[maps.argmax(dim=0).numpy()]
        assert (points[iteration].pseudo_labels == wanted).mean() > 0.999
        segmented = segment_single_scale(cam_model, segmenter, [image])[0].argmax(dim=0).numpy()
        assert (points[iteration].segmentation == segmented).mean() > 0.999
        assert points[iteration].pseudo_labels.dtype == points[iteration].segmentation.dtype == np.uint8


@torch.inference_mode()
def test_every_segmenter_has_a_say_in_the_affinity_and_none_in_the_cams(cam_model, segmenters, image):
    """Without affinity, nothing of a segmenter is in its pseudo labels; with it, they are not those of training-free seeds."""
    points = labels_by_iteration(cam_model, segmenters, image, CLASSES, REFINE)
    assert not np.array_equal(points[10].pseudo_labels, points[20].pseudo_labels)
    encoded = cam_model.encode(cam_model.prepare([image]), 3)
    attention, cams = cam_model.attention(encoded.activations, REFINE)[0], cam_model.cams(encoded)[0, list(CLASSES)]
    free = refine_labels(image, cam_model.prepare([image])[0], CLASSES, cams, attention, REFINE)["par"]
    assert not np.array_equal(points[10].pseudo_labels, free)
    plain = REFINE.model_copy(update={"affinity": REFINE.affinity.model_copy(update={"enabled": False})})
    without = labels_by_iteration(cam_model, segmenters, image, CLASSES, plain)
    assert np.array_equal(without[10].pseudo_labels, without[20].pseudo_labels)


def test_the_tower_runs_once_for_all_segmenters(cam_model, segmenters, image, monkeypatch):
    calls, tokens = [], FrozenClip.tokens
    monkeypatch.setattr(FrozenClip, "tokens", lambda self, batch: (calls.append(len(batch)), tokens(self, batch))[1])
    labels_by_iteration(cam_model, segmenters, image, CLASSES, REFINE)
    assert calls == [1]


CURVE = {
    "format": "excel-curve/1",
    "protocol": {"what": "segmenters kept during training", "images": {"val": 4}},
    "rows": [
        {"split": "val", "iteration": 2000, "pseudo_labels": 0.71, "segmentation": 0.4, "published": None},
        {
            "split": "val",
            "iteration": 6000,
            "pseudo_labels": 0.72,
            "segmentation": 0.6,
            "published": {"pseudo_labels": 0.774, "segmentation": 0.699},
        },
    ],
    "skipped": {"test: 3 of 3 images": "no mask in SegmentationClass"},
}


def test_rows_have_a_column_of_published_figures_only_where_there_are_any():
    rows = curve_rows(CURVE)
    assert rows[0]["iteration"] == "2,000" and rows[0]["segmentation, published"] == "–"
    assert rows[1] == {
        "split": "val",
        "iteration": "6,000",
        "pseudo labels": "0.720",
        "pseudo labels, published": "0.774",
        "segmentation": "0.600",
        "segmentation, published": "0.699",
    }
    own = {**CURVE, "rows": [row | {"published": None} for row in CURVE["rows"]]}
    assert [list(row) for row in curve_rows(own)] == [["split", "iteration", "pseudo labels", "segmentation"]] * 2
    assert curve_rows({}) == [] and curve_note({}) == ""


def test_the_note_says_what_is_missing():
    note = curve_note(CURVE)
    assert note.startswith("segmenters kept during training") and "images: val 4" in note
    assert note.endswith("not scored: test: 3 of 3 images: no mask in SegmentationClass")


def test_published_figures_are_drawn_and_the_chart_is_the_same_for_the_same_numbers(tmp_path):
    own = {**CURVE, "rows": [row | {"published": None} for row in CURVE["rows"]]}
    assert curve_png(CURVE) == curve_png(CURVE) != curve_png(own)
    draw_curve(tmp_path / "curve.png", CURVE)
    with Image.open(tmp_path / "curve.png") as chart:
        assert chart.format == "PNG" and min(chart.size) > 200
    picture = curve_picture(CURVE)
    assert "goes from mIoU 0.400 at iteration 2,000 to 0.600 at 6,000" in picture.caption
    assert curve_picture({}) is None and curve_picture({**CURVE, "rows": []}) is None
