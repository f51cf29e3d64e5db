"""Descriptions and attributes from files in the stages: what they make, what an edit of a file reruns, and what is refused
before any work."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from excel_core.errors import ModelError, PromptError, SettingError
from excel_core.evaluation.ablation import ablation_rows
from excel_core.files import read_json
from excel_core.stores import read_knowledge
from excel_core.text.class_sets import named_classes
from excel_core.text.knowledge import enrich
from flows.cli import app
from flows.request import RunRequest
from tasks.engine.stage import RunEnvironment
from tasks.history.plan import plan_run
from tasks.inputs.models import text_embeddings
from tasks.photos.trained import training_free
from tasks.pipeline import pipeline
from tasks.stages.report import attributes_are
from tests.conftest import PUBLISHED, ROOT, needs_published
from tests.pipeline_runs import follow, follow_and_note

NAMES = ("house", "tree", "car", "boat", "fish", "flower", "cup", "kite", "mushroom", "rocket")
WIDTH = 128  # of excel-tiny


class Files:
    """A store, a file of descriptions in the authors' form, and one of attributes in theirs."""

    def __init__(self, folder):
        self.environment = RunEnvironment(store=folder / "store")
        self.texts = {name: [f"a clean origami {name}. It's a {part} one." for part in ("Red", "big", "old")] for name in NAMES}
        self.bank = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(0))
        self.descriptions, self.attributes = folder / "descriptors.json", folder / "bank.pth"
        self.write()

    def write(self):
        self.descriptions.write_text(json.dumps(self.texts, indent=4))
        torch.save([self.bank.T, torch.eye(10, 12)], self.attributes)

    @property
    def from_file(self):
        return ["describe.provider=file", f"describe.file={self.descriptions}", "describe.n=3"]

    @property
    def ready(self):
        return ["describe.n=3", f"knowledge.attributes_file={self.attributes}"]

    def run(self, settings, last="knowledge"):
        """(outputs by stage, what was built) of the demo with `settings`."""
        run = RunRequest(preset="demo", settings=settings).spec()
        return follow_and_note(run, self.environment, last)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def _knowledge(outputs):
    return read_knowledge(outputs["knowledge"].folder / "knowledge.zarr")


def test_descriptions_come_from_the_file(files):
    outputs, built = files.run([*files.from_file, "knowledge.attributes=5"])
    assert len(built) == 10 + 2 and outputs["describe"].result["file"] == "descriptors.json"
    described = read_json(outputs["describe"].folder / "descriptions.json")
    assert described["classes"]["cup"][0] == "a clean origami cup. it's a red one."
    assert described["provenance"] == {"provider": "file", "file": "descriptors.json"}
    assert _knowledge(outputs).texts[:3] == tuple(text.lower() for text in files.texts["house"])


def test_an_edit_of_the_file_rebuilds_the_class_it_touches(files, tmp_path):
    settings = [*files.from_file, "knowledge.attributes=5"]
    files.run(settings)
    files.texts["cup"][2] = "A cup with two handles."
    files.texts["spoon"] = ["a spoon"]  # which the world does not have
    files.write()
    outputs, built = files.run(settings)
    assert built == ["describe cup", "describe", "knowledge"] and outputs["describe"].result["unused"] == ["spoon"]
    files.descriptions = files.descriptions.rename(tmp_path / "store" / "descriptors.json")
    assert files.run([*files.from_file, "knowledge.attributes=5"])[1] == []  # wherever the file is
    files.descriptions.write_text(files.descriptions.read_text().replace("handles", "HANDLES"))
    assert files.run([*files.from_file, "knowledge.attributes=5"])[1] == []  # another case is the same text


def test_excels_own_file_goes_round(files, tmp_path):
    """descriptions.json of a run, given as a file, leads to the same texts."""
    first, _ = files.run(["describe.n=3", "knowledge.attributes=5"])
    own = first["describe"].folder / "descriptions.json"
    again, _ = files.run(["describe.provider=file", f"describe.file={own}", "describe.n=3", "knowledge.attributes=5"])
    described = [read_json(outputs["describe"].folder / "descriptions.json") for outputs in (first, again)]
    assert described[0]["classes"] == described[1]["classes"]
    assert described[1]["provenance"] == described[0]["provenance"] | {"file": "descriptions.json"}
    assert torch.equal(_knowledge(first).knowledge.text, _knowledge(again).knowledge.text)


def test_ready_attributes_are_those_of_the_file(files):
    outputs, _ = files.run(files.ready)
    found = _knowledge(outputs).knowledge
    assert torch.equal(found.attributes, files.bank) and outputs["knowledge"].result["attributes_file"] == "bank.pth"
    assert len(found.descriptions) == 30  # still encoded: attributes are read by their nearest ones
    spec = RunRequest(preset="demo", settings=files.ready).spec().knowledge
    torch.testing.assert_close(found.text[:10], enrich(found.templates, files.bank, spec))


def test_another_file_of_attributes_reruns_knowledge_and_what_k_means_is_told_does_not(files):
    before, _ = files.run(files.ready)
    assert files.run(files.ready)[1] == []
    assert files.run([*files.ready, "knowledge.attributes=7", "knowledge.n_init=3", "knowledge.seed=5"])[1] == []
    files.bank = files.bank.flip(0) * 1.5
    files.write()
    run = RunRequest(preset="demo", settings=files.ready).spec()
    step = {step.name: step for step in plan_run(pipeline(run, files.environment, "knowledge"))}["knowledge"]
    assert step.runs and step.why == "the file of attributes changed"
    after, built = files.run(files.ready)
    assert built == ["knowledge"] and torch.equal(_knowledge(after).knowledge.attributes, files.bank)
    assert not torch.equal(_knowledge(after).knowledge.text, _knowledge(before).knowledge.text)
    run = RunRequest(preset="demo", settings=["describe.n=3"]).spec()
    step = {step.name: step for step in plan_run(pipeline(run, files.environment, "knowledge"))}["knowledge"]
    assert f"attributes: of {files.attributes} → 64" in step.why


def test_no_attributes_are_read_where_none_are_used(files):
    """Rows of the ablation that change the attributes leave out the run's file."""
    rows = {row.name: row for row in ablation_rows(RunRequest(preset="demo", settings=files.ready).spec(), 200)}
    assert rows["SVC + TSE"].run.knowledge.attributes_file == str(files.attributes)
    plain = follow(rows["SVC"].run, files.environment, "knowledge")
    assert len(_knowledge(plain).knowledge.attributes) == 0
    assert rows["32 attributes"].run.knowledge.attributes_file is None


def test_single_photos_take_both_files(files, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    few = ["cams.image_size=64", "refine.par.enabled=false", "refine.crf.enabled=false", "dataset.prompts=data"]

    def see(*settings):
        run = RunRequest(preset="voc", settings=[*few, *settings], clip="excel-tiny").spec()
        predictor = training_free(("kite", "zebra"), run, files.environment)
        assert predictor.predict(image)["affinity"].shape == (48, 64)
        return predictor.notes

    assert see("knowledge.attributes=null", "describe.n=4") == ()
    (note,) = see(*files.from_file)
    assert note.startswith(f"no descriptions of zebra are in {files.descriptions}: the name alone is used")
    assert note.endswith("enriched by the attributes of the other classes")
    files.texts["zebra"] = files.texts["kite"]
    files.write()
    assert see(*files.from_file) == ()
    assert see(*files.ready) == ()
    with pytest.raises(SettingError, match="knowledge.mode=own_descriptions needs descriptions of every class; none of zebra"):
        del files.texts["zebra"]
        files.write()
        see(*files.from_file, "knowledge.mode=own_descriptions")


def test_photos_of_ones_own_get_plain_words():
    names = ("Snowboard", "hair_drier", "spoon", "baseball glove", "bird", "axolotl")
    prompts = named_classes(names)
    assert prompts.class_names == names
    plain = ["snowboard", "hair drier,blow drier", "spoon", "baseball glove", "bird avian", "axolotl"]
    assert [one.synonyms for one in prompts.classes] == plain


def test_the_report_says_what_attributes_are(files):
    def words(*settings):
        return attributes_are(RunRequest(preset="demo", settings=settings).spec().knowledge)

    assert words() == words("knowledge.attributes=3") == "clusters of descriptions"
    assert words("knowledge.mode=class_means") == "the means of each class's descriptions"
    assert words(*files.ready) == "centroids of the file bank.pth"


def _refused(files, kind, match, settings, *, clip=None, preset="demo"):
    with pytest.raises(kind, match=match) as caught:
        RunRequest(preset=preset, settings=settings, clip=clip).spec()
    assert "\n" not in str(caught.value) and not files.environment.store.exists()


def test_a_file_of_descriptions_that_cannot_be_used_is_refused_before_work(files, tmp_path):
    _refused(files, SettingError, "provider=file: no file is named; add --set describe.file", ["describe.provider=file"])
    _refused(files, SettingError, "read by describe.provider=file alone, got bundled", [f"describe.file={files.descriptions}"])
    gone = ["describe.provider=file", f"describe.file={tmp_path}/none.json"]
    _refused(files, SettingError, "none.json' does not exist", gone)
    _refused(files, SettingError, "none.json' does not exist", gone, preset="photos")
    _refused(files, PromptError, "class 'house' has 3 descriptions, describe.n=4", [*files.from_file, "describe.n=4"])
    _refused(files, PromptError, "no descriptions of 'aeroplane'", files.from_file, preset="voc", clip="excel-tiny")
    del files.texts["kite"]
    files.write()
    _refused(files, PromptError, "descriptors.json: no descriptions of 'kite'; add them", files.from_file)
    files.texts["kite"] = ["a kite.", " ", "a kite."]
    files.write()
    _refused(files, PromptError, r"class 'kite'\[1\]: is empty", files.from_file)
    files.descriptions.write_text('{"kite": [')
    _refused(files, PromptError, "not valid JSON", files.from_file)
    _refused(files, PromptError, "not valid JSON", files.from_file, preset="photos")


def test_a_class_of_the_photos_that_the_file_lacks_is_refused_before_work(files, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "labels.csv").write_text("image,labels\na,kite;zebra\n")
    folders = {"data": str(photos), "store": str(files.environment.store)}
    request = RunRequest(preset="photos", settings=files.from_file, clip="excel-tiny", **folders)
    with pytest.raises(PromptError, match="no descriptions of 'zebra'"):
        request.resolve()
    assert not files.environment.store.exists()


def test_a_file_of_attributes_that_cannot_be_used_is_refused_before_work(files, tmp_path):
    _refused(
        files, SettingError, r"bank\.pth: expected attributes of width 512, the joint width of the CLIP in use, got 128 × 12",
        files.ready, clip="ViT-B-16:openai", preset="voc",
    )  # fmt: skip
    _refused(files, ModelError, "unknown CLIP model", files.ready, clip="ViT-Q:openai", preset="voc")
    _refused(files, SettingError, "none.pth' does not exist", [f"knowledge.attributes_file={tmp_path}/none.pth"])
    _refused(files, SettingError, "knowledge.keep=13 exceeds the 12 attributes of", [*files.ready, "knowledge.keep=13"])
    _refused(files, SettingError, "knowledge.mode=attributes alone, got none", [*files.ready, "knowledge.mode=none"])


def test_the_command_line_refuses_a_bank_of_another_width_in_one_line(files, tmp_path):
    files.bank = files.bank[:, :64]
    files.write()
    ran = CliRunner().invoke(
        app, ["demo", "--store", str(files.environment.store), "--set", f"knowledge.attributes_file={files.attributes}"]
    )
    assert isinstance(ran.exception, SettingError) and "width 128, the joint width of the CLIP in use, got 64 × 12" in str(
        ran.exception
    )
    assert not files.environment.store.exists()


@needs_published
def test_the_authors_files_are_settings_of_a_run():
    _check_settings("pascal_voc", "voc", 112)
    _check_settings("ms_coco", "coco", 224)


def _check_settings(data, name, count):
    texts = PUBLISHED / f"descriptors_{data}_gpt4.0_cluster_a_photo_of4.json"
    bank = PUBLISHED / f"{data}_desc_clip_ViT-B-16_gpt4.0_cluster_{count}_embedding_bank.pth"
    settings = ["describe.provider=file", f"describe.file={texts}", f"knowledge.attributes_file={bank}"]
    assert RunRequest(preset=name, settings=settings, clip="ViT-B-16:openai").spec().describe.n == 20
    with pytest.raises(SettingError, match=rf"expected attributes of width 128, .*, got 512 × {count}"):
        RunRequest(preset=name, settings=settings, clip="excel-tiny").spec()


def test_the_bundled_files_can_be_given_too():
    for name in ("voc", "coco"):
        file = ROOT / "prompts" / "descriptions" / f"{name}.json"
        RunRequest(preset=name, settings=["describe.provider=file", f"describe.file={file}"], clip="ViT-B-16:openai").spec()


def test_another_clip_or_device_has_text_embeddings_of_its_own(files):
    clips = ("excel-tiny", "ViT-B-16:openai")
    runs = [RunRequest(preset="voc", clip=clip).spec() for clip in clips]
    environments = [files.environment.model_copy(update={"device": device}) for device in ("cpu", "cuda")]
    folders = {text_embeddings(run, environment).folder for run in runs for environment in environments}
    assert len(folders) == 4 and {folder.parent for folder in folders} == {files.environment.store / "texts"}
