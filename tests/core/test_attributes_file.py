"""Ready attributes: the three kinds of file either way round, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from excel_core.errors import ModelError, SettingError
from excel_core.models.clip_names import clip_sizes
from excel_core.models.clip_weights import load_clip
from excel_core.text.attributes_file import load_attributes
from tests.conftest import PUBLISHED, needs_published

WIDTH, COUNT = 8, 5


@pytest.fixture
def centroids():
    """(A, D), not of unit length."""
    return torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(0)) * 3


def bank(centroids):
    """As the authors save it: centroids as columns, and which class is in which cluster."""
    return [centroids.T, torch.eye(3, len(centroids))]


def test_every_kind_of_file_either_way_round(centroids, tmp_path):
    torch.save(bank(centroids), tmp_path / "a.pth")
    torch.save(torch.nn.Parameter(centroids), tmp_path / "b.pt")
    np.save(tmp_path / "c.npy", centroids.numpy().astype(np.float64))
    np.save(tmp_path / "d.npy", np.asfortranarray(centroids.T.numpy()))
    save_file({"whatever": centroids}, tmp_path / "e.safetensors")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    for file in files:
        found = load_attributes(file, WIDTH)
        assert torch.equal(found, centroids) and found.dtype == torch.float32 and found.is_contiguous(), file
        assert not found.requires_grad


def test_a_square_holds_columns(tmp_path):
    square = torch.arange(64.0).reshape(8, 8)
    torch.save([square, square], tmp_path / "a.pth")
    np.save(tmp_path / "a.npy", square.numpy())
    assert torch.equal(load_attributes(tmp_path / "a.pth", 8), square.T)
    assert torch.equal(load_attributes(tmp_path / "a.npy", 8), square.T)


class Harmful:
    """Pickled, it calls a function when it is read."""

    def __reduce__(self):
        return print, ("this must never be printed",)


def saved(path, value):
    if path.suffix == ".npy":
        np.save(path, value, allow_pickle=True)
    elif path.suffix == ".safetensors":
        save_file(value, path)
    elif isinstance(value, bytes):
        path.write_bytes(value)
    else:
        torch.save(value, path)
    return path


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("a.pth", [torch.zeros(512, 112), torch.zeros(20, 112)], "expected attributes of width 8.*, got 512 × 112; give"),
        ("a.npy", np.zeros((5, 9)), "expected attributes of width 8, .*, got 5 × 9"),
        ("a.npy", np.zeros((0, 8)), "got 0 × 8"),
        ("a.npy", np.zeros((5, 8), int), "expected one matrix of real numbers, got int64 of shape"),
        ("a.npy", np.zeros(8), r"expected one matrix of real numbers, got float64 of shape \(8,\)"),
        ("a.npy", np.full((5, 8), np.nan), "holds values that are not finite"),
        ("a.npy", np.array([Harmful()]), r"not readable as a \.npy file \(Object arrays cannot be loaded"),
        ("a.pth", [Harmful()], r"not readable as a \.pth file \(it holds more than tensors, which is never run"),
        ("a.pt", b"nothing", "neither a file of torch nor safetensors, and begins with 'nothing'"),
        ("a.pth", {"bank": torch.zeros(8, 5)}, "expected one matrix of real numbers, got 1 tensors: bank"),
        ("a.pth", [], "expected one matrix of real numbers, got list"),
        ("a.safetensors", {"b": torch.zeros(8, 5), "a": torch.zeros(8)}, "got 2 tensors: a, b"),
        ("a.npy", np.full((5, 8), 1e300), "holds values that are not finite"),  # in float32
        ("a.npy", np.full((5, 8), 1e30, np.float32), "holds values that are not finite"),  # T_c would be none
        ("a.npy", np.eye(5, 8)[[0, 1, 1, 3, 4]] * [[1], [0], [1], [1], [1]], "an attribute of zeros alone"),
        ("a.pth", torch.zeros(5, 8, device="meta"), r"sparse, quantised or absent numbers, float32 of shape \(5, 8\)"),
        ("a.pth", torch.eye(5, 8).to_sparse(), r"sparse, quantised or absent numbers, float32 of shape \(5, 8\)"),
        ("a.bin", b"", r"unknown kind of file; valid: \.pth, \.pt, \.npy, \.safetensors"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(name, value, says, tmp_path, capsys):
    path = saved(tmp_path / name, value)
    with pytest.raises(SettingError, match=says) as caught:
        load_attributes(path, WIDTH)
    message = str(caught.value)
    assert message.startswith("knowledge.attributes_file: ") and str(path) in message and "\n" not in message
    assert "this must never be printed" not in capsys.readouterr().out


def test_nothing_is_said_beside_the_error(tmp_path, recwarn):
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Harmful(), protocol=4))  # at whose protocol torch would wonder
    with pytest.raises(SettingError):
        load_attributes(tmp_path / "a.pth", WIDTH)
    assert not recwarn.list


def test_a_suffix_may_be_in_capitals(centroids, tmp_path):
    torch.save(centroids, tmp_path / "A.PTH")
    assert torch.equal(load_attributes(tmp_path / "A.PTH", WIDTH), centroids)


def test_a_folder_is_no_missing_file(tmp_path):
    (tmp_path / "a.pth").mkdir()
    with pytest.raises(SettingError, match=r"a\.pth' is not a file; give the path"):
        load_attributes(tmp_path / "a.pth", WIDTH)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"none\.pth' does not exist"):
        load_attributes(tmp_path / "none.pth", WIDTH)


def test_the_harmful_file_would_run_code_elsewhere(capsys):
    """Else the test above would prove nothing."""
    pickle.loads(pickle.dumps(Harmful()))
    assert "this must never be printed" in capsys.readouterr().out


def test_the_sizes_are_known_before_any_weights_are_read():
    assert (clip_sizes("excel-tiny").joint, clip_sizes("ViT-B-16:openai").joint, clip_sizes("ViT-L-14:openai").joint) == (
        128,
        512,
        768,
    )
    assert (clip_sizes("excel-tiny").patch, clip_sizes("excel-tiny").blocks) == (8, 8)
    assert (clip_sizes("ViT-B-16:openai").patch, clip_sizes("ViT-L-14:openai").blocks) == (16, 24)
    assert load_clip("excel-tiny").encode_texts(["a dog."]).shape[1] == clip_sizes("excel-tiny").joint
    with pytest.raises(ModelError, match="unknown CLIP model"):
        clip_sizes("ViT-X:openai")


@needs_published
def test_the_authors_own_banks():
    _check_bank("pascal_voc", 112, 20)
    _check_bank("ms_coco", 224, 80)


def _check_bank(data, count, classes):
    path = PUBLISHED / f"{data}_desc_clip_ViT-B-16_gpt4.0_cluster_{count}_embedding_bank.pth"
    found = load_attributes(path, clip_sizes("ViT-B-16:openai").joint)
    assert found.shape == (count, 512) and (found.norm(dim=1) <= 1 + 1e-5).all() and (found.norm(dim=1) < 0.999).any()
    columns, flags = torch.load(path, weights_only=True)
    assert flags.shape == (classes, count) and torch.equal(found, columns.T)
    with pytest.raises(SettingError, match=rf"expected attributes of width 128, .*, got 512 × {count}"):
        load_attributes(path, clip_sizes("excel-tiny").joint)
