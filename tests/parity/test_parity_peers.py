"""The peer methods against their published programs' arrays, and that the comparison finds what is computed otherwise."""

from pathlib import Path

import numpy as np
import pytest
import torch

from excel_core.config.methods import METHODS, Method
from excel_core.errors import StoreError
from excel_core.evaluation.parity import golden_clip
from excel_core.evaluation.parity_clip_es import compute_clip_es
from excel_core.evaluation.parity_peers import SETS, compare_with_peers
from excel_core.world.scenes import render_scene
from tests.conftest import GOLDENS, needs_goldens
from tests.parity.golden_set import write_golden_set

PEERS = GOLDENS.with_name("peers")
CLASSES = ([0], [1, 3])


@needs_goldens
@pytest.mark.parametrize("name", SETS)
def test_every_published_key(name):
    [compared] = [each for each in compare_with_peers(PEERS, GOLDENS.with_name("reference_clip.npz")) if each.name == name]
    assert not compared.missing and len(compared.results) >= 63
    assert [result for result in compared.results if not result.ok] == []


@pytest.fixture(scope="module")
def own_set(tmp_path_factory):
    """(folder with clip_es.npz, the CLIP's file): drawn scenes under weights by number, computed by this program itself. It
    says nothing about the published one, and holds the comparison."""
    folder = tmp_path_factory.mktemp("peers")
    prefix = write_golden_set(folder)
    clip = golden_clip(prefix)
    # Texts that lie close together, so that the softmax is undecided and every class has a gradient.
    near = 1 + 0.05 * torch.randn(24, clip.joint_width, generator=torch.Generator().manual_seed(1))
    text = torch.nn.functional.normalize(near, dim=1)
    golden = {"text": text.numpy(), "ids": np.array(["a", "b"])}
    for n, classes in enumerate(CLASSES):
        image = render_scene(11 + n, 90).image[: 80 - 10 * n]
        golden |= {f"image_{n}": image, f"classes_{n}": np.array(classes)}
        golden[f"probabilities_{n}"] = np.zeros(len(classes) + 4)  # so there are 4 background prompts
        golden[f"saved_cams_{n}"] = np.zeros((len(classes), *image.shape[:2]), np.float16)
    for _ in range(2):  # the CRF starts from the saved CAMs, which the first pass makes
        outputs = {key: value.numpy() for key, value in compute_clip_es(golden, clip, folder).outputs.items()}
        golden |= {key: value for key, value in outputs.items() if key.startswith("saved_cams")}
    np.savez(folder / "clip_es.npz", **golden | outputs)
    return folder, prefix.with_name("set_clip.npz")


def _failing(own_set):
    """Names of the keys that are out of tolerance, without their image's number."""
    [compared] = [each for each in compare_with_peers(*own_set) if each.name == "clip_es"]
    return {result.key.rpartition("_")[0] for result in compared.results if not result.ok}


def test_the_set_agrees_with_itself(own_set):
    golden = np.load(own_set[0] / "clip_es.npz")
    assert all(set(np.unique(golden[f"labels_crf_confident_{n}"])) > {0, 255} for n in (0, 1))  # else nothing is compared
    assert _failing(own_set) == set()
    others = [each for each in compare_with_peers(*own_set) if each.name != "clip_es"]
    assert all(each.missing and not each.results for each in others)


@pytest.mark.parametrize(
    ("stage", "edits", "expected"),
    [
        ("cams", {"normalisation": "imagenet"}, {"input", "block11", "gradcam", "saved_cams"}),
        ("cams", {"input": "square"}, {"input"}),
        ("refine", {"affinity": {"layers": 7}}, {"attention", "masked_affinity", "caa", "saved_cams"}),
        ("refine", {"affinity": {"threshold": 0.9}}, {"box_mask", "caa"}),
        ("refine", {"affinity": {"sinkhorn_steps": 0}}, {"masked_affinity", "caa"}),
        ("refine", {"crf": {"image": "photo"}}, {"crf_image", "crf"}),
        ("refine", {"crf": {"normalised": True}}, {"crf"}),
        ("refine", {"crf": {"confidence": 0.6}}, {"labels_crf_confident"}),
    ],
)
def test_the_yardstick_finds_a_changed_accident(own_set, monkeypatch, stage, edits, expected):
    """Each deviation alone is out of tolerance: the comparison can fail, and where."""
    published = METHODS["clip_es"]["reference"]
    changed = published.edits | {stage: _merged(published.edits[stage], edits)}
    monkeypatch.setitem(METHODS["clip_es"], "reference", Method(changed, published.of_preset))
    if edits == {"input": "square"}:
        monkeypatch.setitem(changed["cams"], "image_size", 64)
    failing = _failing(own_set)
    assert expected <= failing, failing
    if stage == "refine":
        assert not failing & {"input", "block11", "gradcam"}


def _merged(values, edits):
    return values | {
        key: _merged(values[key], value) if isinstance(value, dict) and key in values else value for key, value in edits.items()
    }


def test_keys_that_do_not_belong_and_keys_that_are_missing_are_named(own_set, tmp_path):
    golden = dict(np.load(own_set[0] / "clip_es.npz"))
    golden["strange_0"] = golden.pop("caa_1")
    np.savez(tmp_path / "clip_es.npz", **golden)
    [compared] = [each for each in compare_with_peers(tmp_path, own_set[1]) if each.name == "clip_es"]
    assert {result.key for result in compared.results if not result.ok} == {
        "strange_0 (unknown: nothing computes it)", "caa_1 (the set has no such key)",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, "holds no set of golden arrays; expected clip_es.npz"),
        ({"text": np.zeros((45, 32))}, "has no array 'image_0'"),
        ({"image_0": np.zeros((4, 4, 3)), "text": np.zeros((45, 7))}, r"'text' must be \(any, 32\), got \(45, 7\)"),
    ],
)
def test_sets_that_cannot_be_read_are_named(own_set, tmp_path, arrays, message):
    if arrays is not None:
        np.savez(tmp_path / "clip_es.npz", **arrays)
    with pytest.raises(StoreError, match=message):
        compare_with_peers(tmp_path, own_set[1])


def test_a_missing_clip_is_named(own_set):
    with pytest.raises(StoreError, match="does not exist"):
        compare_with_peers(own_set[0], Path("nowhere.npz"))
