"""The stage `figures` on the small run: its pictures, which images it shows, and that it opens no mask."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import tasks.stages.figures
from excel_core.cams.seeds import learnt_cams
from excel_core.config.presets import with_settings
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import DataError, MaskLeakError, SettingError
from excel_core.files import read_json
from excel_core.paper.figures import cam_columns
from excel_core.stores import read_knowledge
from tasks.engine.executor import build_stage
from tasks.engine.stage import MaskAccess, RunEnvironment
from tasks.inputs.images import images_of
from tasks.inputs.models import load_cam_model, load_trained
from tasks.pipeline import STAGES, pipeline
from tests.pipeline_runs import complete, files_made, files_named, follow

NAMES = ("figure_4.png", "figure_5.png", "figure_6.png")


@pytest.fixture
def job(chain, small_run):
    """The stage's job, its inputs complete."""
    return figures_job(small_run, chain[1])


def figures_job(run, environment):
    graph, outputs = pipeline(run, environment, "figures"), {}
    *needed, last = graph.nodes.values()
    for node in needed:
        outputs[node.id] = build_stage(graph.job(node, outputs))
    return graph.job(last, outputs)


def test_three_pictures_and_what_they_show(job, chain, tmp_path):
    output = build_stage(job)
    about = read_json(output.folder / "figures.json")
    assert files_made(output) == files_named("figures")
    assert about["format"] == "excel-figures/1" and about["clip"] == "excel-tiny" and output.result["images"] == 4
    rows = images_of(job, "held_out_1")
    names = read_knowledge(chain[0]["knowledge"].folder / "knowledge.zarr").class_names
    assert [image["id"] for image in about["images"]] == [row.id for row in rows[:4]]
    for image, row in zip(about["images"], rows, strict=False):
        assert image["class"] == names[row.classes[0]] and image["grid"] == [16, 16] and len(image["attributes"]) == 4
        weights = [entry["weight"] for entry in image["attributes"]]
        assert weights == sorted(weights, reverse=True) and 0 < sum(weights) < 1
        assert all(entry["description"].startswith("a clean origami ") for entry in image["attributes"])
        assert image["cams"] == ["original", "calibrated", "enriched", "learnt"]
    for name in NAMES:
        with Image.open(output.folder / name) as picture:
            assert picture.format == "PNG" and picture.width == 1200 and 600 < picture.height < 2500
            assert np.asarray(picture.convert("L")).std() > 20
    again = build_stage(figures_job(job.run, RunEnvironment(store=_copy_without_figures(job.environment.store, tmp_path))))
    assert all((again.folder / name).read_bytes() == (output.folder / name).read_bytes() for name in NAMES)


def _copy_without_figures(store, folder):
    return shutil.copytree(store, folder / "store", ignore=shutil.ignore_patterns("figures"))


def test_the_last_column_is_what_the_stage_dynamic_makes(job):
    cam_model, row = load_cam_model(job), images_of(job, "held_out_1")[0]
    segmenter, image = load_trained(job, cam_model), cam_model.prepare([row.read()])
    plain = read_knowledge(job.folder(tasks.stages.figures.PLAIN) / "knowledge.zarr").knowledge
    mirror = job.run.dynamic.mirror
    columns = cam_columns(cam_model, plain.text, segmenter, image, row.classes[0], job.run.refine, mirror)
    seeds = learnt_cams(cam_model, segmenter, image, job.run.refine, mirror)
    np.testing.assert_array_equal(columns.learnt, seeds.cams[0, row.classes[0]].detach().numpy())
    assert np.abs(columns.learnt - columns.enriched).max() > 0.01
    own = read_knowledge(job.folder("knowledge") / "knowledge.zarr").knowledge
    assert plain.text[: len(own.templates)].equal(own.templates) and len(plain.attributes) == 0


def test_a_mask_that_is_opened_ends_it(job, tmp_path, monkeypatch):
    assert STAGES["figures"].masks is MaskAccess.NEVER
    mask = next((job.data / "SegmentationClass").glob("*.png"))
    monkeypatch.setattr(tasks.stages.figures, "draw_cams", lambda *_: load_labels_png(mask))
    with pytest.raises(MaskLeakError, match="figures"):
        build_stage(replace(job, environment=RunEnvironment(store=tmp_path)))


def test_images_are_chosen_by_name(job, tmp_path):
    first, second = (images_of(job, split)[0].id for split in ("held_out_2", "train"))
    run = with_settings(job.run, [f"figures.images=[{second}, {first}, {second}]", "figures.query=[2, 3]"])
    output = build_stage(figures_job(run, job.environment))
    images = read_json(output.folder / "figures.json")["images"]
    assert [image["id"] for image in images] == [second, first] and {tuple(image["query"]) for image in images} == {(2, 3)}
    for setting, words in (
        ("figures.images=[nobody]", "no usable image 'nobody' in held_out_1, held_out_2, held_out_3, train"),
        ("figures.query=[16, 0]", "16 rows and 16 columns"),
    ):
        wrong = figures_job(with_settings(job.run, [setting, "figures.count=1"]), job.environment)
        with pytest.raises(SettingError, match=words):
            build_stage(wrong)
        assert complete(wrong) is None


def test_fewer_images_than_asked_for_and_images_without_label(job, tmp_path, monkeypatch):
    real = images_of(job, "held_out_1")

    def labels_of(kept):
        def read(_, split):
            return [row if row.id in kept else row._replace(classes=()) for row in real] if split == "held_out_1" else []

        return read

    monkeypatch.setattr(tasks.stages.figures, "images_of", labels_of({real[1].id}))
    rows, notes = tasks.stages.figures._chosen(job)
    assert [row.id for row in rows] == [real[1].id]
    assert notes == ["4 images were asked for; the validation splits have 1 with a label."]
    named = replace(job, run=with_settings(job.run, [f"figures.images=[{real[0].id}, {real[1].id}]"]))
    rows, notes = tasks.stages.figures._chosen(named)
    assert [row.id for row in rows] == [real[1].id] and notes == [f"{real[0].id} has no image-level label and is left out."]
    monkeypatch.setattr(tasks.stages.figures, "images_of", labels_of(set()))
    for found in (job, named):
        with pytest.raises(DataError, match="no image with an image-level label in"):
            tasks.stages.figures._chosen(found)


def test_a_fully_supervised_segmenter_is_named(job):
    assert not any("supervised" in note for note in tasks.stages.figures._notes(job, []))
    result = job.inputs["train"].result | {"supervision": "masks: fully supervised"}
    trained = job.inputs["train"].model_copy(update={"result": result})
    notes = tasks.stages.figures._notes(replace(job, inputs=job.inputs | {"train": trained}), [])
    assert "trained on masks: fully supervised" in notes


def test_a_run_without_attributes_says_so(chain, small_run):
    run = with_settings(small_run, ["knowledge.mode=none", "figures.count=1"])
    output = follow(run, chain[1], "figures")["figures"]
    about = read_json(output.folder / "figures.json")
    assert about["images"][0]["attributes"] == [] and about["images"][0]["cams"] == ["original", "calibrated", "learnt"]
    assert "No + TSE: the class texts are the plain templates (knowledge.mode=none)." in about["notes"]
    with Image.open(io.BytesIO((output.folder / "figure_5.png").read_bytes())) as picture:
        assert picture.width == 1200
