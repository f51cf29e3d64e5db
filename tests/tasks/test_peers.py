"""Methods that train no segmenter, through the stages to a report; what they share with ExCEL is computed once."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from excel_core.config.presets import preset, with_settings
from excel_core.datasets.palette import load_labels_png
from excel_core.files import read_json
from excel_core.safe_csv import read_rows
from excel_core.stores import CamReader, read_counts
from tasks.engine.stage import RunEnvironment
from tests.pipeline_runs import follow

SMALL = [
    "dataset.train_scenes=12",
    "dataset.val_scenes=4",
    "shards.images=4",
    "report.gallery_images=2",
    "refine.par.iterations=4",
]


@pytest.fixture(scope="module", params=["clip_es:reference", "maskclip:reference"])
def peer(request, chain):
    """(run, outputs) of a method on the scenes of `chain`."""
    run = with_settings(preset("demo", request.param), SMALL)
    return run, follow(run, RunEnvironment(store=chain[1].store), "report")


def test_a_chain_without_training_ends_with_a_report(peer, chain):
    run, outputs = peer
    assert list(outputs) == ["world", "dataset", "describe", "knowledge", "cams", "refine", "evaluate", "quality", "report"]
    metrics = read_json(outputs["evaluate"].folder / "metrics.json")
    steps = ["raw", "affinity", "crf"] if run.method.startswith("clip_es") else ["raw", "affinity", "par", "crf"]
    assert list(metrics["results"]) == [f"seeds.static.train.{step}" for step in steps]
    assert {result["protocol"]["method"] for result in metrics["results"].values()} == {run.method}
    page = (outputs["report"].folder / "index.html").read_text(encoding="utf-8")
    assert run.method in page
    assert outputs["world"] == chain[0]["world"] and outputs["dataset"] == chain[0]["dataset"]
    assert (outputs["describe"] == chain[0]["describe"]) == run.method.startswith("maskclip")


def test_confident_labels_are_the_pseudo_labels(peer):
    run, outputs = peer
    folder = outputs["refine"].folder
    if run.refine.crf.confidence is None:
        assert not (folder / "steps" / "crf").exists()
        return
    unsure = 0
    for path in sorted((folder / "SegmentationClassPseudo").glob("*.png")):
        confident, crf = load_labels_png(path), load_labels_png(folder / "steps" / "crf" / path.name)
        sure = confident != 255
        assert (confident[sure] == crf[sure]).all()
        unsure += int((~sure).sum())
    assert unsure > 0


def test_labels_are_ranked_without_a_training(peer):
    """By the steps of static labels alone, but for the one that leaves pixels without a label; and what CLIP sees of a class is
    read from the embedding that the method compares with texts."""
    _, outputs = peer
    images = CamReader(outputs["cams"].folder).ids
    rows = read_rows(outputs["quality"].folder / "quality.csv", 100)
    assert sorted(row["image"] for row in rows) == sorted(images)
    steps = [step for step in outputs["refine"].result["steps"] if step != "confident"]
    assert set(rows[0]) == {"image", "score", *("-".join(pair) for pair in combinations(steps, 2))}
    tables = [read_counts(path) for path in (outputs["cams"].folder / "presence").iterdir()]
    scores = pd.concat(tables).set_index("image")
    assert sorted(scores.index) == sorted(images) and (scores.abs() <= 1).all(axis=None) and scores.std().min() > 0
    assert "Look at these first" in (outputs["report"].folder / "index.html").read_text(encoding="utf-8")


def test_cams_are_of_the_photos_own_grid(peer, chain):
    run, outputs = peer
    reader = CamReader(outputs["cams"].folder)
    classes, cams = reader.read(reader.ids[0])
    assert cams.shape == (len(classes), 16, 16) and cams.min() >= 0 and cams.max() <= 1 and len(classes) > 0
    if run.cams.producer == "gradcam":
        excel = CamReader(chain[0]["cams"].folder)
        assert reader.attention(reader.ids[0]) is None
        assert np.abs(cams - excel.read(reader.ids[0])[1]).max() > 0.1
