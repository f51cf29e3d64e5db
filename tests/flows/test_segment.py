"""`excel segment` and `excel export` as a user runs them: a process, photos, exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from excel_core.datasets.images import read_image
from excel_core.datasets.palette import load_labels_png
from excel_core.models.clip_weights import load_clip
from excel_core.prediction.trained_segmenter import save_portable
from excel_core.world.scenes import render_scene
from tests.core.published_toys import published_state, seeded_segmenter
from tests.core.trained_toys import toy_segmenter

PHOTOS = ("wide", "wider")
EXCEL = Path(sys.executable).with_name("excel")


@pytest.fixture
def excel(tmp_path):
    """Run `excel ARGUMENTS` in an empty folder, with a store of its own → the finished process."""
    env = os.environ | {"EXCEL_STORE": str(tmp_path / "store"), "COLUMNS": "200"}

    def run(*arguments):
        return subprocess.run([EXCEL, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path, env=env)

    return run


@pytest.fixture
def weights(tmp_path):
    save_portable(tmp_path / "toy.safetensors", toy_segmenter())
    return tmp_path / "toy.safetensors"


def test_two_photos_without_training(excel, tmp_path):
    photos = [tmp_path / f"{name}.jpg" for name in PHOTOS]
    scene = render_scene(1, 200).image
    for photo, pixels in zip(photos, (scene[:150], scene[:110]), strict=True):
        Image.fromarray(pixels).save(photo)
    ran = excel("segment", *photos, "--classes", "dog, chair", "--clip", "excel-tiny", "--out", "masks", "--steps")
    assert ran.returncode == 0, ran.stderr
    about = json.loads((tmp_path / "masks" / "photos.json").read_text())
    assert about["class_names"] == ["dog", "chair"]
    for name, photo, entry in zip(PHOTOS, photos, about["photos"], strict=True):
        labels = load_labels_png(tmp_path / "masks" / f"{name}.png")
        height, width, _ = read_image(photo).shape
        assert labels.shape == (height, width) == (entry["height"], entry["width"]) and labels.max() <= 2
        for value, found in enumerate(("dog", "chair"), start=1):
            assert entry["shares"].get(found, 0) == pytest.approx((labels == value).mean())
        assert re.search(rf"{name}\.jpg +{width}×{height} ", ran.stdout)
        overlay = read_image(tmp_path / "masks" / f"{name}_overlay.png")
        drawn_width = 960 * width // max(height, width)
        assert overlay.shape[1] == drawn_width and overlay.shape[0] > drawn_width * height // width  # and a legend
        assert (tmp_path / "masks" / f"{name}_steps.png").exists()
    assert "excel-tiny has seen drawn scenes of the picture-book world alone" in ran.stdout
    for entry in about["photos"]:
        assert entry.get("doubts", {}).keys() == entry["shares"].keys()  # it knows neither dogs nor chairs
        for name, share in entry["shares"].items():
            assert f"doubtful: {name} in {entry['photo']}: excel-tiny has never seen it" in ran.stdout
            assert f"{name}: doubtful (" in ran.stdout and f"{name} {share:.0%}" not in ran.stdout
    again = excel("segment", *photos, "--classes", "dog, chair", "--clip", "excel-tiny", "--out", "masks")
    assert again.returncode == 2 and "is there already" in again.stderr


def test_the_number_of_attributes_may_be_left_open(excel, tmp_path):
    Image.fromarray(render_scene(1, 96).image).save(tmp_path / "p.png")
    given = ("segment", "p.png", "--clip", "excel-tiny", "--set", "knowledge.attributes=null", "--classes")
    for number, names in enumerate(("dog,sofa", "axolotl", "dog,axolotl")):
        ran = excel(*given, names, "--out", f"masks {number}", "--set", "refine.crf.enabled=false")
        assert ran.returncode == 0, ran.stderr


def test_a_trained_segmenter_and_bad_photos(excel, weights, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "photos" / "good.png")
    (tmp_path / "photos" / "bad.jpg").write_text("no photo")
    ran = excel("segment", "photos", "--weights", weights, "--classes", "dog", "--multi-scale", "--crf")
    assert ran.returncode == 1, ran.stderr
    assert "skipped photos/bad.jpg: bad.jpg: not an image" in ran.stdout
    assert set(np.unique(load_labels_png(tmp_path / "segmented" / "good.png"))) <= {0, 1}
    (tmp_path / "photos" / "good.png").unlink()
    assert excel("segment", "photos", "--weights", weights, "--force").returncode == 2


def test_a_checkpoint_of_the_published_code(excel, tmp_path):
    clip = load_clip("excel-tiny")
    segmenter = seeded_segmenter(clip, width=16)
    torch.save(published_state(clip, segmenter), tmp_path / "best.safetensors")  # the content tells what it is
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "p.png")
    given = ("segment", "p.png", "--weights", "best.safetensors", "--clip", "excel-tiny")
    ran = excel(*given, "--classes", "dog,sofa", "--multi-scale", "--crf", "--steps")
    assert ran.returncode == 0, ran.stderr
    assert "best.safetensors: trained otherwise: the CLIP's activation is GELU, not QuickGELU" in ran.stderr
    about = json.loads((tmp_path / "segmented" / "photos.json").read_text())
    assert len(about["class_names"]) == 20 and about["class_names"][11] == "dog"
    assert set(np.unique(load_labels_png(tmp_path / "segmented" / "p.png"))) <= {0, 12, 18}
    refused = excel(*given, "--set", "refine.crf.iterations=3", "--force")
    assert refused.returncode == 2 and "--weights brings its own settings: leave out --method and --set" in refused.stderr
    torch.save(published_state(clip, seeded_segmenter(clip, classes=7, width=16)), tmp_path / "best.safetensors")
    refused = excel(*given, "--force")
    assert refused.returncode == 2 and "knows 7 classes; the bundled class sets have 20 (voc), 80 (coco)" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "p.png"], "say what the photos show: --classes"),
        (["segment", "p.png", "--classes", "dog", "--crf"], "--multi-scale and --crf are for --weights"),
        (["segment", "p.png", "--weights", "toy.safetensors", "--clip", "excel-tiny"], "--weights brings its own CLIP"),
        (["segment", "p.png", "--weights", "gone.pth"], "gone.pth: there is no such file; give a checkpoint"),
        (["segment", "p.png", "--weights", "gone.pth", "--clip", "excel-tiny"], "gone.pth: there is no such file; give a"),
        (
            ["segment", "p.png", "--weights", "gone.safetensors", "--clip", "excel-tiny"],
            "gone.safetensors: there is no such file",
        ),
        (["segment", "p.png", "--weights", "latest"], "has no run named 'latest'"),
        (["segment", "gone.png", "--classes", "dog"], "gone.png: no such photo or folder"),
        (["segment", "p.png", "--classes", "dog", "--clip", "excel-tiny", "--device", "tpu"], "unknown device 'tpu'"),
        (["export", "latest", "--format", "palette", "--out", "x"], "has no run named 'latest'"),
    ],
)
def test_wrong_wishes_end_with_a_reason(excel, weights, tmp_path, arguments, message):
    Image.new("RGB", (20, 20)).save(tmp_path / "p.png")
    ran = excel(*arguments)
    assert ran.returncode == 2 and message in ran.stderr and "Traceback" not in ran.stderr
    assert not (tmp_path / "segmented").exists()
