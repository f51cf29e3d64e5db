"""The recipe of docs/exports.md, run as it is written there: a model of torchvision learns from exported pseudo labels."""

import re
import runpy

import torch

from tasks.photos.export import ExportRequest, export_run
from tests.conftest import ROOT


def test_another_model_learns_from_pseudo_labels(record, tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    recipe = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "torchvision" in code)
    (tmp_path / "recipe.py").write_text(recipe, encoding="utf-8")
    export_run(record, ExportRequest("fiftyone", what="pseudo"), tmp_path / "pairs")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    ran = runpy.run_path("recipe.py")
    losses = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 2 and losses[1] < losses[0] and ran["names"]["1"] == "house"
    assert torch.load("model.pt", weights_only=True).keys() == ran["model"].state_dict().keys()
    assert len(list((tmp_path / "pairs" / "data").iterdir())) == 12
