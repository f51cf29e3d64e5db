"""A run that is given a segmenter by a checkpoint of the published code: no training, the same label maps, said everywhere."""

import shutil

import pandas as pd
import pytest
import torch

from artifacts.prefect_artifacts.run_bodies import run_bodies
from artifacts.readme_figures import write_figures
from excel_core.config.presets import with_settings
from excel_core.errors import ModelError, SettingError
from excel_core.files import read_json
from excel_core.models.checkpoints import Architecture, load_segmenter
from excel_core.models.clip_weights import load_clip
from excel_core.prediction.trained_segmenter import load_portable
from excel_core.stores import read_knowledge
from tasks.engine.executor import Step
from tasks.engine.fingerprint import file_digest
from tasks.engine.stage import RunEnvironment
from tasks.history.run_record import start_record
from tasks.inputs.given_segmenter import check_given_segmenter
from tasks.photos.export import ExportRequest, export_run
from tasks.photos.trained import published_trained
from tasks.pipeline import pipeline, report_job
from tasks.stages.report import make_view
from tests.core.published_toys import published_state, seeded_segmenter
from tests.pipeline_runs import follow


@pytest.fixture(scope="module")
def trained(chain, small_run):
    """The segmenter that the shared run trained."""
    names = read_knowledge(chain[0]["knowledge"].folder / "knowledge.zarr").class_names
    shape = Architecture("excel-tiny", 8, 128, names, small_run.train.segmenter)
    return load_segmenter(chain[0]["train"].folder / "segmenter.safetensors", shape)


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    """The same as a checkpoint of the published code."""
    path = tmp_path_factory.mktemp("published") / "best.pth"
    torch.save(published_state(load_clip("excel-tiny"), trained), path)
    return path


@pytest.fixture(scope="module")
def given(chain, small_run, checkpoint, tmp_path_factory):
    """(run, environment, outputs) of the shared run, but for a checkpoint instead of training."""
    run = with_settings(small_run, [f"train.from_checkpoint={checkpoint}"])
    environment = RunEnvironment(store=tmp_path_factory.mktemp("given") / "store")
    shutil.copytree(chain[1].store, environment.store)
    return run, environment, follow(run, environment, "report")


def test_the_stage_takes_it_and_says_so(given, checkpoint):
    output = given[2]["train"]
    assert {path.name for path in output.folder.iterdir()} == {"segmenter.safetensors", "losses.csv", "stage.json"}
    losses = pd.read_csv(output.folder / "losses.csv")
    assert list(losses) == ["iteration", "loss", "segmentation", "diversity", "learning_rate"] and losses.empty
    assert output.result["checkpoint"] == "best.pth" and output.result["sha256"] == file_digest(checkpoint)
    assert "cams.normalisation is clip, not imagenet" in output.result["differs"]
    assert str(checkpoint.parent) not in (output.folder / "stage.json").read_text()


def test_label_maps_are_those_of_the_segmenter_it_was_made_from(chain, given):
    ours, theirs = (outputs["predict"].folder for outputs in (given[2], chain[0]))
    maps = sorted(path.relative_to(theirs) for path in theirs.rglob("*.png"))
    assert len(maps) == 3 * 3 * 4
    assert [path for path in maps if (ours / path).read_bytes() != (theirs / path).read_bytes()] == []
    pseudo = sorted((chain[0]["dynamic"].folder / "SegmentationClassPseudo").iterdir())
    assert len(pseudo) == 12
    for path in pseudo:
        assert (given[2]["dynamic"].folder / "SegmentationClassPseudo" / path.name).read_bytes() == path.read_bytes()


def test_only_what_reads_the_segmenter_ran(chain, given):
    assert list(given[2]) == list(chain[0])
    changed = {name for name, output in given[2].items() if output.key != chain[0][name].key}
    assert changed == {"train", "dynamic", "predict", "evaluate", "report"}
    ours, theirs = (read_json(outputs["evaluate"].folder / "metrics.json")["results"] for outputs in (given[2], chain[0]))
    learnt = {key for key, result in ours.items() if result["protocol"].pop("weights", None) == "published checkpoint"}
    assert ours == theirs  # the same label maps, but whose segmenter it was
    assert learnt == {key for key in ours if not key.startswith("seeds.static.")}


def test_it_is_keyed_by_its_bytes_and_not_by_its_folder(given, checkpoint, tmp_path):
    run, environment, outputs = given

    def key(path):
        graph = pipeline(with_settings(run, [f"train.from_checkpoint={path}"]), environment, "train")
        job = graph.job(graph.nodes[graph.own_ids["train"]], {id: outputs[name] for name, id in graph.own_ids.items()})
        return Step(job).key

    copied = shutil.copy(checkpoint, tmp_path / "best.pth")
    assert key(copied) == outputs["train"].key
    state = torch.load(copied, weights_only=True)
    state["module.decoder.linear_pred.bias"][0] += 1
    torch.save(state, copied)
    assert key(copied) != outputs["train"].key


def test_the_report_and_all_figures_do_without_losses(given, tmp_path):
    run, environment, outputs = given
    words = f"checkpoint best.pth (SHA-256 {outputs['train'].result['sha256'][:16]})"
    page = (outputs["report"].folder / "index.html").read_text()
    assert f"Nothing was trained: the segmenter comes from {words}; trained otherwise: cams.normalisation is clip" in page
    assert "loss curve over" not in page and 'href="#training"' in page
    view = make_view(report_job(run, environment, outputs))
    made = {body.key: body for body in run_bodies(view, tmp_path / "index.html")}
    assert "excel-losses-demo" not in made and words.split("(")[0] in made["excel-gallery-demo"].markdown
    results = write_figures(tmp_path, view)[1].read_text()
    assert "Nothing was trained: the segmenter comes from checkpoint best.pth" in results


def test_a_run_that_trained_says_nothing_of_a_checkpoint(chain):
    page = (chain[0]["report"].folder / "index.html").read_text()
    assert "Nothing was trained" not in page and "loss curve over" in page


def test_it_has_no_learning_curve(given):
    with pytest.raises(SettingError, match=r"curve: train\.from_checkpoint trains nothing"):
        pipeline(given[0], given[1], "curve")


def test_its_segmenter_can_be_exported(given, trained, tmp_path):
    run, environment, outputs = given
    record = start_record("excel", run, environment)
    for name, output in outputs.items():
        record.own[name] = output.key
    export_run(record, ExportRequest("safetensors"), tmp_path / "out")
    loaded = load_portable(tmp_path / "out" / "segmenter.safetensors")
    assert loaded.class_names == read_knowledge(outputs["knowledge"].folder / "knowledge.zarr").class_names
    for key, value in trained.state_dict().items():
        assert torch.equal(loaded.segmenter.state_dict()[key], value)


def test_what_does_not_fit_is_refused_before_any_stage(small_run, trained, tmp_path):
    def refused(state, *settings):
        torch.save(state, tmp_path / "c.pth")
        run = with_settings(small_run, [f"train.from_checkpoint={tmp_path / 'c.pth'}", *settings])
        with pytest.raises(ModelError) as error:
            check_given_segmenter(run, None, "cpu")
        assert "\n" not in str(error.value)
        return str(error.value)

    clip = load_clip("excel-tiny")
    assert "expected classes 10, got 20; change dataset.prompts" in refused(
        published_state(clip, seeded_segmenter(clip, width=16))
    )
    state = published_state(clip, trained)
    assert "expected width 32, got 16; change train.segmenter.width" in refused(state, "train.segmenter.width=32")
    state["module.encoder.visual.transformer.resblocks.5.mlp.c_fc.weight"][3, 4] += 0.1
    named = "encoder.visual.transformer.resblocks.5.mlp.c_fc.weight differs by up to 0.1"
    assert f"another CLIP than excel-tiny: {named}" in refused(state)


@pytest.mark.parametrize(("classes", "first"), [(20, "aeroplane"), (80, "person")])
def test_photos_get_the_bundled_classes(tmp_path, classes, first):
    clip = load_clip("excel-tiny")
    segmenter = seeded_segmenter(clip, classes, width=32, layers=2)
    torch.save(published_state(clip, segmenter), tmp_path / "c.pth")
    found = published_trained(tmp_path / "c.pth", "cpu", "excel-tiny")
    assert len(found.class_names) == classes and found.class_names[0] == first
    assert found.cam_model.spec.image_size == 320 and found.spec.layers == 2
    assert found.predict_spec.flip == ("not_at_1" if classes == 20 else "all")
    for key, value in segmenter.state_dict().items():
        assert torch.equal(found.segmenter.state_dict()[key], value)


def test_photos_need_bundled_classes(checkpoint):
    with pytest.raises(ModelError, match=r"knows 10 classes; the bundled class sets have 20 \(voc\), 80 \(coco\)"):
        published_trained(checkpoint, "cpu", "excel-tiny")
