"""The segmenter as one file: equal to the bit, alone, and refused where it is not what it says."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from excel_core.errors import ModelError
from excel_core.models.checkpoints import Architecture, save_segmenter
from excel_core.models.clip import FrozenClip
from excel_core.prediction import trained_segmenter as portable
from excel_core.prediction.trained_segmenter import load_portable, save_portable
from tests.conftest import ROOT, small_clip_model
from tests.core.trained_toys import CLASSES, toy_segmenter

VISION = {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8}


@pytest.fixture(scope="module")
def trained():
    return toy_segmenter()


@pytest.fixture
def written(trained, tmp_path):
    save_portable(tmp_path / "s.safetensors", trained)
    return tmp_path / "s.safetensors"


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize("multi_scale", [False, True])
def test_loaded_it_segments_as_before(trained, written, image, multi_scale):
    loaded = load_portable(written)
    logits = loaded.segment(image, multi_scale)
    assert loaded.class_names == CLASSES and logits.shape == (4, 50, 70)
    assert torch.equal(logits, trained.segment(image, multi_scale))
    assert np.array_equal(loaded.refine(image, logits), trained.refine(image, logits))


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_the_activation_goes_with_the_weights(tmp_path, image, quick_gelu):
    config = {"embed_dim": 16, "vision_cfg": VISION, "quick_gelu": quick_gelu}
    clip = FrozenClip(small_clip_model(quick_gelu=quick_gelu), None, "small:/home/someone/weights.pt", config)
    toy = toy_segmenter(clip)
    save_portable(tmp_path / "s.safetensors", toy)
    loaded = load_portable(tmp_path / "s.safetensors")
    assert torch.equal(loaded.segment(image), toy.segment(image)) and loaded.supervision == "labels"
    assert loaded.cam_model.clip.config == config and loaded.cam_model.clip.name == "small:weights.pt"
    assert b"someone" not in (tmp_path / "s.safetensors").read_bytes()


def test_it_holds_no_text_tower_and_says_so(written):
    clip = load_portable(written).cam_model.clip
    assert not any("token_embedding" in key for key in load_file(written))
    with pytest.raises(ModelError, match="encodes no texts; load the whole CLIP"):
        clip.encode_texts(["a dog"])


def test_it_runs_where_nothing_else_is(written, tmp_path):
    """In an empty folder, without network, and without the shipped CLIP's files being opened."""
    code = (
        "import sys, numpy as np\n"
        "opened = []\n"
        "def watch(event, args):\n"
        "    if event == 'open': opened.append(str(args[0]))\n"
        "    assert event != 'socket.connect'\n"
        "sys.addaudithook(watch)\n"
        "from pathlib import Path\nfrom excel_core.prediction.trained_segmenter import load_portable\n"
        f"s = load_portable(Path({str(written)!r}))\n"
        "print(s.segment(np.zeros((16, 16, 3), np.uint8)).shape)\n"
        "assert opened and not [name for name in opened if 'tiny_clip' in name]\n"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "torch.Size([4, 16, 16])\n"


def test_what_it_needs_is_written_for_others_to_read(written):
    with safe_open(written, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "excel-segmenter/1" and json.loads(metadata["class_names"]) == list(CLASSES)
    view = json.loads(metadata["input"])
    assert view["image_size"] == 64 and view["patch"] == 8 and view["grid"] == [8, 8] and view["normalisation"] == "clip"
    assert view["calibration"]["layers"] == "published"


def test_an_export_of_an_earlier_version_smooths_photos_as_it_did(trained, written, image, tmp_path):
    """Before `antialias`, `average_at`, `sides` and `supervision` were known, photos were smoothed as they shrank."""
    with safe_open(written, framework="pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key not in ("digest", "supervision")}
    for group, field in (("input", "antialias"), ("predict", "average_at"), ("predict", "sides")):
        found = json.loads(metadata[group])
        del found[field]
        metadata[group] = json.dumps(found)
    tensors = load_file(written)
    save_file(tensors, tmp_path / "old.safetensors", metadata | {"digest": portable._digest(tensors, metadata)})
    loaded = load_portable(tmp_path / "old.safetensors")
    assert (loaded.cam_model.spec.antialias, loaded.predict_spec.average_at, loaded.supervision) == (True, 1.0, "labels")
    assert loaded.predict_spec.sides == "whole_patches"
    large = np.kron(image, np.ones((3, 3, 1), np.uint8))
    smooth = replace(
        trained, cam_model=replace(trained.cam_model, spec=trained.cam_model.spec.model_copy(update={"antialias": True}))
    )
    assert torch.equal(loaded.segment(large), smooth.segment(large))
    assert not torch.allclose(loaded.segment(large), trained.segment(large))


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def _flipped(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def _foreign(path):
    save_file({"a": torch.zeros(2)}, path)


def _renamed_class(path):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {"class_names": json.dumps(["cat", *CLASSES[1:]])})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncated, "not readable as safetensors"),
        (_flipped, "damaged: its bytes are not those that were written"),
        (_renamed_class, "damaged"),
        (_foreign, "format must be excel-segmenter/1, got none"),
        (lambda path: path.write_text("a picture"), "neither a file of torch nor safetensors"),
        (lambda path: path.unlink(), "there is no such file; write it with `excel export"),
    ],
)
def test_other_files_are_refused_with_a_reason(written, damage, message):
    damage(written)
    with pytest.raises(ModelError, match=message):
        load_portable(written)


def test_a_runs_own_weights_are_told_apart(trained, tmp_path):
    shape = Architecture("excel-tiny", 8, 128, CLASSES, trained.spec)
    save_segmenter(tmp_path / "segmenter.safetensors", shape, trained.segmenter)
    with pytest.raises(ModelError, match="got a run's own weights; write one with"):
        load_portable(tmp_path / "segmenter.safetensors")


def test_a_tower_of_unknown_description_is_not_written(tmp_path, small_clip):
    with pytest.raises(ModelError, match="description of its vision tower is not known"):
        save_portable(tmp_path / "s.safetensors", toy_segmenter(small_clip))
    assert not list(tmp_path.iterdir())
