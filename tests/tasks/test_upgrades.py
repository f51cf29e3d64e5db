"""Training-free upgrades as stages: masks that vote, what to look at first, and the flow's table, on the small demo."""

import numpy as np
import pytest
from safetensors.torch import load_file

from artifacts.tables import ablation_note, ablation_rows
from bench.region_proposals import write_region_proposals
from excel_core.cams.mask_votes import voted_labels
from excel_core.config.presets import preset, with_settings
from excel_core.datasets.mask_proposals import read_proposals
from excel_core.datasets.masks import VocMaskReader
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import MaskLeakError
from excel_core.evaluation.label_quality import agreements, quality_score, rank_correlation
from excel_core.evaluation.metrics import class_iou, confusion_matrix
from excel_core.files import read_json
from excel_core.safe_csv import read_rows
from excel_core.stores import CamReader, read_counts
from tasks.engine.stage import RunEnvironment
from tasks.pipeline import complete_outputs
from tasks.stages.proposals import ProposalsResult
from tasks.stages.quality import QualityResult
from tests.conftest import SMALL_DEMO
from tests.pipeline_runs import follow, follow_and_note

STEPS = ("raw", "affinity", "par", "crf")


@pytest.fixture(scope="module")
def proposals(chain, tmp_path_factory):
    """A folder of masks of the small demo's photos, but for one of them."""
    folder = tmp_path_factory.mktemp("proposals")
    assert write_region_proposals(chain[0]["world"].folder / "JPEGImages", folder) > 12
    next(folder.glob("*.json")).unlink()
    return folder


@pytest.fixture(scope="module")
def voting(small_run, proposals):
    """The small run with mask votes."""
    votes = ["refine.votes.enabled=true", f"refine.votes.masks={proposals}"]
    return with_settings(small_run, [*votes, "evaluate.ablation=false", "quality.enabled=false"])


def _labels(output, step, image):
    steps = output.result["steps"]
    place = "SegmentationClassPseudo" if step == steps[-1] else f"steps/{step}"
    return load_labels_png(output.folder / place / f"{image}.png")


def test_masks_vote_on_the_labels_after_par(chain, voting, proposals):
    outputs, built = follow_and_note(voting, chain[1], "dynamic", parts=False)
    assert built == ["proposals", "refine", "dynamic"], "training has no votes"
    assert outputs["refine"].result["steps"] == [*STEPS, "votes"]
    counts = outputs["proposals"].result_as(ProposalsResult)
    images = CamReader(chain[0]["cams"].folder).ids
    there = [image for image in images if (proposals / f"{image}.json").exists()]
    assert counts.images == len(images) and counts.without == len(images) - len(there) and counts.broken == 0
    changed = 0
    for image in images:
        for stage in ("refine", "dynamic"):
            before, voted = (_labels(outputs[stage], step, image) for step in ("par", "votes"))
            assert (_labels(chain[0][stage], "crf", image) == _labels(outputs[stage], "crf", image)).all()
            expected = before
            if image in there:
                masks = read_proposals(proposals / f"{image}.json", *before.shape)
                expected = voted_labels(before, masks, voting.refine.votes)
            np.testing.assert_array_equal(voted, expected)
            changed += int((voted != before).any())
    assert changed > 0


def test_votes_are_marked_wherever_they_are_named(chain, voting):
    metrics = read_json(follow(voting, chain[1], "evaluate")["evaluate"].folder / "metrics.json")
    for key, result in metrics["results"].items():
        marked = "+SAM" in str(result["protocol"])
        assert marked == key.endswith(".votes"), key
    assert {key.rpartition(".")[2] for key in metrics["results"]} >= {*STEPS, "votes"}


def test_proposals_from_the_truth_are_refused(chain, small_run, tmp_path):
    """A folder called like VOC's masks is closed to the stage."""
    place = tmp_path / "SegmentationClass"
    write_region_proposals(chain[0]["world"].folder / "JPEGImages", place)
    run = with_settings(small_run, ["refine.votes.enabled=true", f"refine.votes.masks={place}"])
    with pytest.raises(MaskLeakError, match="proposals"):
        follow(run, chain[1], "proposals")


def test_images_are_ranked_worst_first(chain):
    output = chain[0]["quality"]
    rows = read_rows(output.folder / "quality.csv", 100)
    images = CamReader(chain[0]["cams"].folder).ids
    assert sorted(row["image"] for row in rows) == sorted(images)
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores) and output.result_as(QualityResult).images == len(images)
    static, learnt = ({s: _labels(chain[0][stage], s, rows[0]["image"]) for s in STEPS} for stage in ("refine", "dynamic"))
    expected = agreements(static, learnt, 11)
    assert scores[0] == pytest.approx(quality_score(expected), abs=1e-6)
    assert {name: float(rows[0][name]) for name in expected} == pytest.approx(expected, abs=1e-6)
    page = (chain[0]["report"].folder / "index.html").read_text()
    assert "Look at these first" in page and "Doubtful labels" in page and rows[0]["image"] in page


def test_cams_keep_what_clip_sees(chain):
    tables = [read_counts(path) for path in (chain[0]["cams"].folder / "presence").iterdir()]
    assert sorted(image for table in tables for image in table["image"]) == sorted(CamReader(chain[0]["cams"].folder).ids)
    assert all(table.shape[1] == 1 + 10 and (table.drop(columns="image").abs() <= 1).all(axis=None) for table in tables)


def test_every_upgrade_is_scored_alone(chain, small_run, proposals):
    settings = ["ablation.groups=[upgrades]", "ablation.resamples=100", f"refine.votes.masks={proposals}"]
    output = follow(with_settings(small_run, settings), chain[1], "ablation")["ablation"]
    table = read_json(output.folder / "ablation.json")
    by_group = {}
    for row in table["rows"]:
        by_group.setdefault(row["group"], []).append(row["name"])
    names = [
        "as it is", "k-k with a Gaussian window (NACLIP)", "middle attention (ResCLIP)", "three sides",
        "windows over twice the side", "a second encoder's cosines (ProxyCLIP)",
    ]  # fmt: skip
    assert by_group == {"upgrades: CAMs": names, "upgrades: pseudo labels": [*names, "mask votes (+SAM)"]}
    for row in table["rows"]:
        first = next(other for other in table["rows"] if other["group"] == row["group"])
        if row is first:
            assert "difference" not in row
            continue
        assert row["difference"]["difference"] == pytest.approx(row["miou"] - first["miou"])
        assert row["difference"]["low"] <= row["difference"]["high"]
    as_it_is = next(row for row in table["rows"] if row["group"] == "upgrades: pseudo labels")
    metrics = read_json(chain[0]["evaluate"].folder / "metrics.json")
    assert as_it_is["by_split"]["train"] == pytest.approx(metrics["results"]["seeds.static.train.crf"]["miou"])
    assert table["protocol"]["+SAM"] == "image-level labels +SAM"
    assert -1 <= table["ranking"]["spearman"]["train"] <= 1
    assert "Spearman train" in ablation_note({"ablation": table})
    assert ablation_rows({"ablation": table})[1]["difference"].startswith(("+", "-"))


def test_a_second_encoder_makes_cams_and_no_segmenter(chain, small_run, monkeypatch):
    """ProxyCLIP's attention through the stages: other CAMs, a segmenter of one neck; other weights of DINO, other CAMs."""
    proxy = ["cams.calibration.attention=proxy", "dino.model=dino-tiny", "evaluate.ablation=false", "quality.enabled=false"]
    run = with_settings(small_run, proxy)
    outputs, built = follow_and_note(run, chain[1], "dynamic", parts=False)
    assert built[-2:] == ["train", "dynamic"], "the table of upgrades has its CAMs and labels"
    for stage in ("cams", "dynamic"):
        cams, plain = (CamReader(folder) for folder in (outputs[stage].folder, chain[0][stage].folder))
        assert max(np.abs(cams.read(image)[1] - plain.read(image)[1]).max() for image in cams.ids) > 0.1
    shapes = [
        {name: tensor.shape for name, tensor in load_file(of["train"].folder / "segmenter.safetensors").items()}
        for of in (outputs, chain[0])
    ]
    assert shapes[0] == shapes[1]
    monkeypatch.setattr("tasks.inputs.models.dino_fingerprint", lambda name: "other weights")
    assert "cams" not in complete_outputs(run, chain[1], "cams")


def test_the_score_ranks_images_by_their_true_iou(tmp_path):
    """60 scenes of the demo, static CAMs: the truth is read here alone."""
    run = with_settings(
        preset("demo"), [*SMALL_DEMO, "dataset.train_scenes=60", "refine.par.iterations=20", "shards.images=64"]
    )
    outputs = follow(run, RunEnvironment(store=tmp_path), "refine")
    reader, scores, truth = VocMaskReader(outputs["world"].folder), [], []
    for image in CamReader(outputs["cams"].folder).ids:
        steps = {step: _labels(outputs["refine"], step, image) for step in STEPS}
        scores.append(quality_score(agreements(steps, {}, 11)))
        iou = class_iou(confusion_matrix(reader.read(image, 128, 128), steps["crf"], 11))
        truth.append(np.nanmean(iou))
    assert rank_correlation(np.array(scores), np.array(truth)) >= 0.5
