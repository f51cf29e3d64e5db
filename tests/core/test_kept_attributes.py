"""Attributes of single photos' classes are made once: another process needs no scikit-learn for them."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from excel_core.config import KnowledgeSpec
from excel_core.errors import StoreError
from excel_core.text import kept_attributes as module
from excel_core.text.kept_attributes import kept_attributes, read_attributes
from excel_core.text.knowledge import cluster_attributes
from tests.conftest import ROOT

SPEC = KnowledgeSpec(attributes=5)


def _descriptions(seed=0):
    return F.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def clusterings(monkeypatch):
    """The specs of all clusterings so far."""
    seen = []

    def cluster(descriptions, spec):
        seen.append(spec)
        return cluster_attributes(descriptions, spec)

    monkeypatch.setattr(module, "cluster_attributes", cluster)
    return seen


def test_they_are_those_of_kmeans_and_made_once(tmp_path, clusterings):
    expected = cluster_attributes(_descriptions(), SPEC)
    for _ in range(3):
        attributes = kept_attributes(tmp_path, _descriptions(), SPEC)
        assert torch.equal(attributes, expected) and attributes.dtype == torch.float32
    assert len(clusterings) == 1 and len(list(tmp_path.iterdir())) == 1
    assert torch.equal(kept_attributes(None, _descriptions(), SPEC), expected)


def test_whatever_they_depend_on_makes_them_anew(tmp_path, clusterings, monkeypatch):
    kept_attributes(tmp_path, _descriptions(), SPEC)
    changed = [SPEC.model_copy(update=update) for update in ({"attributes": 6}, {"seed": 7}, {"n_init": 2})]
    for spec in changed:
        assert torch.equal(kept_attributes(tmp_path, _descriptions(), spec), cluster_attributes(_descriptions(), spec))
    kept_attributes(tmp_path, _descriptions(1), SPEC)
    monkeypatch.setattr(module, "version", lambda package: "another")
    kept_attributes(tmp_path, _descriptions(), SPEC)
    assert len(clusterings) == 6 and len(list(tmp_path.iterdir())) == 6
    monkeypatch.setattr(module, "cluster_attributes", lambda descriptions, spec: descriptions[:2])  # other code
    assert torch.equal(kept_attributes(tmp_path, _descriptions(), SPEC), _descriptions()[:2])


@pytest.mark.parametrize("damage", ["a bit", "cut", "nothing", "another's"])
def test_damage_is_made_good(tmp_path, clusterings, damage):
    expected = kept_attributes(tmp_path, _descriptions(), SPEC)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    kept_attributes(tmp_path / "other", _descriptions(1), SPEC)
    (other,) = (tmp_path / "other").iterdir()
    path.write_bytes({
        "a bit": whole[:-1] + bytes([whole[-1] ^ 1]), "cut": whole[:-4], "nothing": b"", "another's": other.read_bytes()
    }[damage])  # fmt: skip
    with pytest.raises(StoreError):
        read_attributes(path)
    assert torch.equal(kept_attributes(tmp_path, _descriptions(), SPEC), expected)
    assert path.read_bytes() == whole and len(clusterings) == 3


def test_another_process_needs_no_scikit_learn(tmp_path):
    kept_attributes(tmp_path, _descriptions(), SPEC)
    code = f"""if True:
        import sys
        from pathlib import Path
        from tests.core.test_kept_attributes import SPEC, _descriptions
        from excel_core.text.kept_attributes import kept_attributes
        kept_attributes(Path({str(tmp_path)!r}), _descriptions(), SPEC)
        print("sklearn" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
