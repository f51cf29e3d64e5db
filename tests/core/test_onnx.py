"""The ONNX graph in onnxruntime, fed and read by hand, against the segmenter in PyTorch."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from excel_core.errors import ModelError
from excel_core.exports import onnx_graph
from excel_core.exports.onnx_graph import TOLERANCE, compare_onnx, write_onnx
from tests.conftest import ROOT
from tests.core.trained_toys import CLASSES, toy_segmenter

SIZE = 64


@pytest.fixture(scope="module")
def photos():
    """Smooth pictures of two shapes: on noise every segmenter says the same everywhere."""
    generator = np.random.default_rng(1)
    small = [generator.integers(0, 255, (6, 8, 3), dtype=np.uint8) for _ in range(2)]
    sizes = [(90, 60), (41, 77)]
    return [np.array(Image.fromarray(s).resize(size, Image.Resampling.BICUBIC)) for s, size in zip(small, sizes, strict=True)]


@pytest.fixture(scope="module", params=["published", "true"])
def written(request, photos, tmp_path_factory):
    taught = {"published": "labels", "true": "masks"}[request.param]
    trained = replace(toy_segmenter(layers=request.param, size=SIZE), supervision=taught)
    path = tmp_path_factory.mktemp("onnx") / "s.onnx"
    return trained, path, write_onnx(path, trained, photos)


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_it_is_checked_as_it_is_written(written, photos):
    _, path, check = written
    assert check.images == onnx_graph.RANDOM_IMAGES + 1 + len(photos)
    assert check.difference < TOLERANCE / 10 and check.equal > 0.999
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert [file.name for file in path.parent.iterdir()] == ["s.onnx"]


def test_a_photo_by_hand_gets_the_segmenters_labels(written, photos):
    trained, path, _ = written
    for photo in photos:
        pixels = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        image = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear").numpy()
        logits, labels = session(path).run(None, {"image": image})
        assert logits.shape == (1, len(CLASSES) + 1, SIZE // 8, SIZE // 8)
        full = F.interpolate(torch.from_numpy(logits), photo.shape[:2], mode="bilinear")[0]
        wanted = trained.segment(photo)
        torch.testing.assert_close(full, wanted, atol=1e-4, rtol=1e-4)
        assert (full.argmax(0) == wanted.argmax(0)).float().mean() > 0.999
        up = F.interpolate(torch.from_numpy(logits), (SIZE, SIZE), mode="bilinear")[0].argmax(0).numpy()
        assert labels.dtype == np.uint8 and (labels[0] == up).mean() > 0.999


def test_any_batch(written):
    _, path, _ = written
    images = np.random.default_rng(0).random((5, 3, SIZE, SIZE), dtype=np.float32)
    together = session(path).run(["logits"], {"image": images})[0]
    alone = np.concatenate([session(path).run(["logits"], {"image": images[i : i + 1]})[0] for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("shape", [(40, 96), (SIZE, 128), (16, 16)])
def test_any_size_in_whole_patches(written, shape):
    trained, path, _ = written
    image = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(4))
    logits, labels = session(path).run(None, {"image": image.numpy()})
    with torch.inference_mode():
        wanted, wanted_labels = onnx_graph._Graph(trained).eval()(image)
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    assert labels.shape == (2, *shape) and (labels == wanted_labels.numpy()).mean() > 0.999


def test_it_says_how_to_feed_it(written):
    trained, path, _ = written
    about = session(path).get_modelmeta().custom_metadata_map
    assert about["format"] == "excel-segmenter-onnx/1" and about["supervision"] == trained.supervision
    assert json.loads(about["class_names"]) == ["background", *CLASSES]
    assert json.loads(about["preprocessing"])["height"] == SIZE
    assert json.loads(about["sizes"]) == {"multiple_of": 8, "at_least": 16, "at_most": 2048}
    assert str(ROOT).encode() not in path.read_bytes()  # the exporter would note its own source lines


def test_the_aliasing_of_published_layers_is_in_the_graph(photos, tmp_path):
    """The two graphs have the same weights; only which tokens the neck is given differs."""
    published, true = (toy_segmenter(layers=layers, size=SIZE) for layers in ("published", "true"))
    difference = (published.segment(photos[0]) - true.segment(photos[0])).abs().max()
    assert difference > 10 * TOLERANCE
    write_onnx(tmp_path / "s.onnx", published)
    other = compare_onnx(tmp_path / "s.onnx", onnx_graph._Graph(true).eval(), [torch.rand(1, 3, SIZE, SIZE)])
    assert other.difference > TOLERANCE


def test_a_graph_that_differs_is_not_kept(tmp_path, monkeypatch):
    export = onnx_graph._export

    def export_another(graph, path):
        other = toy_segmenter(layers="true", size=SIZE)
        export(onnx_graph._Graph(other).eval(), path)

    monkeypatch.setattr(onnx_graph, "_export", export_another)
    with pytest.raises(ModelError, match="differ by .* in a logit, more than 1e-03.*the file was not kept"):
        write_onnx(tmp_path / "s.onnx", toy_segmenter(size=SIZE))
    assert not list(tmp_path.iterdir())


def test_the_core_stands_without_what_exports_need(tmp_path):
    code = (
        "import sys\n"
        "for name in ('onnx', 'onnxruntime', 'onnxscript', 'pycocotools'): sys.modules[name] = None\n"
        "from pathlib import Path\nfrom excel_core.errors import SettingError\n"
        "from excel_core.exports import coco_results, cvat, folder, label_maps, onnx_graph, voc_submission\n"
        "from tests.core.trained_toys import toy_segmenter\n"
        "try: onnx_graph.write_onnx(Path(sys.argv[1]), toy_segmenter())\n"
        "except SettingError as error: print(error)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "s.onnx")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert "pip install 'excel-wsss[export]'" in ran.stdout
