"""The Python interface on drawn scenes: what it computes is what the stages' own functions compute, and its errors help."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import excel_core as excel
from excel_core import api
from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import label_steps
from excel_core.cams.seeds import learnt_cams, static_cams
from excel_core.config.presets import preset, with_iterations, with_settings
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import DataError, ImageError, PromptError, SettingError
from excel_core.models.checkpoints import Architecture
from excel_core.prediction.predictors import trained_predictor, training_free_predictor
from excel_core.text.embeddings import TextEmbeddings
from excel_core.text.knowledge import build_knowledge_base
from excel_core.training import loop
from excel_core.training.samples import LabelFile, TrainingImage
from excel_core.world.scenes import render_scene
from tests.conftest import ROOT

EDITS = [
    "cams.image_size=64", "describe.n=4", "knowledge.attributes=8", "refine.par.iterations=3", "refine.crf.iterations=2",
    "train.crop=64", "train.iterations=4", "train.batch_size=2", "train.dynamic_from=2", "train.own_argmax_from=3",
    "train.segmenter.width=16", "predict.image_size=64", "predict.scales=[0.5, 1.0]",
]  # fmt: skip


@pytest.fixture(scope="module")
def settings():
    return excel.settings("demo", *EDITS)


@pytest.fixture(scope="module")
def clip():
    return excel.load_clip("excel-tiny")


@pytest.fixture(scope="module")
def model(clip, settings):
    classes = excel.classes("world")
    knowledge = excel.build_knowledge(clip, classes, excel.describe(classes, settings), settings)
    return excel.TrainingFreeModel(clip, knowledge, settings)


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(seed, 96) for seed in range(5)]


@pytest.fixture(scope="module")
def segmenter(model, scenes):
    return excel.train(model, [(scene.image, scene.labels) for scene in scenes])


def test_importing_it_is_instant_and_loads_no_torch():
    code = "import sys, excel_core as excel; assert 'torch' not in sys.modules; assert 'train' in dir(excel)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


def test_every_name_of_the_interface_is_there_and_documented():
    assert excel.__all__ == api.__all__ == sorted(api.__all__)
    for name in excel.__all__:
        value = getattr(excel, name)
        assert value is getattr(api, name)
        assert name == "ImageSource" or value.__doc__
    with pytest.raises(AttributeError, match="no attribute 'tran'"):
        excel.tran  # noqa: B018


def test_settings_are_presets_with_edits():
    expected = with_settings(preset("voc", "clean"), ["cams.image_size=96", "train.iterations=7"])
    assert excel.settings("voc", "train.iterations=7", method="clean", cams={"image_size": 96}) == expected
    assert excel.settings() == preset("photos")
    with pytest.raises(SettingError, match="unknown field 'cams.size'"):
        excel.settings("voc", cams={"size": 96})


def test_another_length_of_training_keeps_the_schedule():
    train = with_iterations(preset("voc"), 3000).train
    assert (train.iterations, train.warmup, train.dynamic_from, train.own_argmax_from) == (3000, 5, 1400, 2400)
    assert with_iterations(preset("coco"), 50_000).train.own_argmax_from is None
    with pytest.raises(SettingError, match="train.iterations"):
        with_iterations(preset("voc"), 0)


def test_classes_come_by_name_from_a_bundled_set_or_a_file(tmp_path):
    assert excel.classes("voc").class_names[:2] == ("aeroplane", "bicycle")
    assert excel.classes(["car", "cup"]).class_names == ("car", "cup")
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ntemplate: 'a {}.'\nclasses: [{name: cat, synonyms: cat kitten}]\nbackground: [grass]\n")
    assert excel.classes(file).templates() == ["a cat kitten."]
    for names, message in (([], "got none"), (["car", "Car"], "none twice; got car, Car")):
        with pytest.raises(SettingError, match=message):
            excel.classes(names)
    with pytest.raises(SettingError, match="there is no 'vox'; valid: coco, voc, world"):
        excel.classes("vox")


def test_descriptions_are_bundled_or_from_a_file(tmp_path):
    world = excel.describe(excel.classes("world"), excel.settings("demo"))
    assert len(world.texts) == 10 and all(len(texts) == 20 for texts in world.texts.values())
    named = excel.describe(excel.classes(["cup", "sofa"]), excel.settings("photos", "describe.n=3"))
    assert [len(texts) for texts in named.texts.values()] == [3, 3]
    with pytest.raises(PromptError, match=r"no bundled descriptions of axolotl; give a file \(file=\)"):
        excel.describe(excel.classes(["axolotl"]))
    file = tmp_path / "texts.json"
    file.write_text('{"axolotl": ["a pale animal with gills.", "an animal in water."]}')
    own = excel.describe(excel.classes(["axolotl"]), excel.settings("photos", "describe.n=2"), file=file)
    assert own.texts == {"axolotl": ("a pale animal with gills.", "an animal in water.")}


def test_a_language_model_may_describe(monkeypatch):
    from excel_core.text.ask_class import Answer, LlmCost

    def ask(spec, prompts, name, key):
        texts = tuple(f"{prompts.description_prefix(name)}has {i}" for i in range(spec.n))
        return Answer(texts, {"model": spec.model}, LlmCost(requests=1, prompt_tokens=1, completion_tokens=1))

    monkeypatch.setattr(api, "ask_class", ask)
    settings = excel.settings("photos", "describe.provider=openai", "describe.n=2", "describe.model=small")
    asked = excel.describe(excel.classes(["cup", "axolotl"]), settings, api_key="k")
    assert list(asked.texts) == ["cup", "axolotl"] and asked.class_provenance["cup"] == {"model": "small"}
    assert asked.provenance["model asked for"] == "small" and "k" not in asked.provenance.values()


def test_knowledge_is_the_stage_s(clip, model, settings, tmp_path):
    classes = excel.classes("world")
    texts = excel.describe(classes, settings).in_class_order(classes.class_names)
    expected = build_knowledge_base(classes, texts, settings.knowledge, clip, TextEmbeddings(tmp_path))
    assert torch.equal(model.knowledge.knowledge.text, expected.knowledge.text)
    assert model.knowledge.class_names == classes.class_names and model.knowledge.texts == expected.texts


def test_without_descriptions_names_stay_as_they_are(clip):
    knowledge = excel.build_knowledge(clip, excel.classes(["axolotl", "cup"]), settings=excel.settings("voc")).knowledge
    assert torch.equal(knowledge.text[:2], knowledge.templates) and len(knowledge.attributes) == 0


def test_cams_and_labels_are_those_of_the_stages(model, scenes, settings):
    core = CamModel(model.clip, model.knowledge.knowledge.text, 10, settings.cams)
    for scene in scenes:
        classes = [model.class_names.index(name) for name in scene.labels]
        with torch.inference_mode():
            seeds = static_cams(core, [scene.image], settings.refine)
            maps = seeds.refined_maps(0, scene.image, settings.refine, classes)
            steps = label_steps(scene.image, classes, maps, settings.refine)
        cams = model.cams(scene.image, scene.labels)
        assert cams.class_names == scene.labels and cams.maps.dtype == np.float32
        assert np.array_equal(cams.maps, seeds.cams[0, classes].numpy())
        labels = model.refine(cams)
        assert list(labels.steps) == list(steps) == ["raw", "affinity", "par", "crf"]
        assert all(np.array_equal(labels.steps[step], steps[step]) for step in steps)
        assert np.array_equal(model.refine(cams, crf=False).labels, steps["par"])
        assert labels.labels.shape == (96, 96) and set(np.unique(labels.labels)) <= {0, *(index + 1 for index in classes)}


def test_all_classes_are_what_the_command_segment_computes(clip, scenes, settings, tmp_path):
    run = with_settings(settings, ["dataset.prompts=data", "knowledge.attributes=null"])
    predictor = training_free_predictor(("car", "cup"), run, clip, TextEmbeddings(tmp_path))
    classes = excel.classes(["car", "cup"])
    model = excel.TrainingFreeModel(clip, excel.build_knowledge(clip, classes, excel.describe(classes, run), run), run)
    expected = predictor.predict(scenes[0].image)
    labels = model.refine(model.cams(scenes[0].image)).steps
    assert all(np.array_equal(labels[step], expected[step]) for step in expected)


def test_files_pil_images_and_arrays_are_the_same_photo(model, scenes, tmp_path):
    pixels = scenes[0].image
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for photo in (str(tmp_path / "a.png"), tmp_path / "a.png", Image.fromarray(pixels), pixels[:, ::-1][:, ::-1]):
        assert np.array_equal(excel.load_image(photo), pixels)
        assert np.array_equal(model.cams(photo, ["tree"]).maps, model.cams(pixels, ["tree"]).maps)
    turned = Image.fromarray(pixels[:64])
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "a.jpg", exif=turned.getexif(), quality=95)
    assert excel.load_image(tmp_path / "a.jpg").shape == excel.load_image(turned).shape == (96, 64, 3)
    for array in (pixels.astype(float), pixels[..., 0], pixels[:4]):
        with pytest.raises(ImageError, match=r"expected \(H, W, 3\) uint8 RGB"):
            excel.load_image(array)


def test_training_is_the_stage_s(model, scenes, settings, segmenter, tmp_path):
    images = []
    for i, scene in enumerate(scenes):
        classes = tuple(model.class_names.index(name) for name in scene.labels)
        Image.fromarray(scene.image).save(tmp_path / f"{i}.png")
        save_labels_png(tmp_path / f"labels_{i}.png", model.refine(model.cams(scene.image, scene.labels)).steps["par"])
        images.append(TrainingImage(tmp_path / f"{i}.png", classes, labels=LabelFile(tmp_path / f"labels_{i}.png")))
    core = CamModel(model.clip, model.knowledge.knowledge.text, 10, settings.cams)
    shape = Architecture("excel-tiny", 8, 128, model.class_names, settings.train.segmenter)
    network, losses = loop.train(core, images, settings.train, settings.refine, shape, tmp_path / "checkpoint.pt")
    assert segmenter.losses == tuple(losses) and len(losses) == 4
    ours, theirs = segmenter.segmenter.state_dict(), network.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)

    again = excel.train(model, [(tmp_path / f"{i}.png", scene.labels) for i, scene in enumerate(scenes)], iterations=4)
    assert again.losses == segmenter.losses  # files are arrays, and the settings' own number of iterations changes nothing


def test_predictions_are_the_command_s_and_survive_a_file(segmenter, scenes, settings, tmp_path):
    excel.save(segmenter, tmp_path / "s.safetensors")
    loaded = excel.load(str(tmp_path / "s.safetensors"))
    image, names = scenes[1].image, ("car", "cup")
    for options in ({}, {"multi_scale": True}, {"multi_scale": True, "crf": True}):
        labels = segmenter.predict(image, **options)
        assert labels.dtype == np.uint8 and labels.shape == (96, 96)
        assert np.array_equal(labels, loaded.predict(image, **options))
        multi_scale, crf = options.get("multi_scale", False), options.get("crf", False)
        logits = segmenter.segment(image, multi_scale)
        plain = segmenter.refine(image, logits).argmax(axis=0) if crf else logits.argmax(dim=0).numpy()
        assert np.array_equal(labels, plain)
        steps = trained_predictor(segmenter, names, multi_scale, crf).predict(image)
        assert np.array_equal(segmenter.predict(image, names, **options), list(steps.values())[-1])
    assert segmenter.cam_model.spec.image_size == settings.predict.image_size


def test_learnt_cams_are_the_stage_s(model, segmenter, scenes, settings):
    scene = scenes[2]
    cams = model.cams(scene.image, scene.labels, segmenter)
    with torch.inference_mode():
        seeds = learnt_cams(model.cam_model, segmenter.segmenter, [scene.image], settings.refine, settings.dynamic.mirror)
    classes = [model.class_names.index(name) for name in scene.labels]
    assert np.array_equal(cams.maps, seeds.cams[0, classes].numpy()) and torch.equal(cams.attention, seeds.attention[0])


def test_scores_are_counted_over_all_images(tmp_path):
    truths = [np.array([[0, 1], [2, 255]], dtype=np.uint8), np.array([[1, 1], [1, 1]], dtype=np.uint8)]
    predictions = [np.array([[0, 1], [1, 1]], dtype=np.uint8), np.array([[1, 1], [0, 1]], dtype=np.uint8)]
    scores = excel.evaluate(predictions, truths, ["car", "cup"])
    assert scores.iou == {"background": 1 / 2, "car": 4 / 6, "cup": 0} and scores.pixels == 7
    for i, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        save_labels_png(tmp_path / f"p{i}.png", prediction)
        save_labels_png(tmp_path / f"t{i}.png", truth)
    files = [[tmp_path / f"{kind}{i}.png" for i in (0, 1)] for kind in "pt"]
    assert excel.evaluate(*files, ["car", "cup"]) == scores
    with pytest.raises(DataError, match="a truth for each prediction, got 2 and 1"):
        excel.evaluate(predictions, truths[:1], ["car", "cup"])


def test_what_does_not_fit_is_refused_before_work(model, clip, scenes):
    with pytest.raises(SettingError, match="unknown class 'dog'; the classes are: house, tree"):
        model.cams(scenes[0].image, ["Tree", "dog"])
    with pytest.raises(SettingError, match="cams.image_size=100: expected a multiple of 8, patch of excel-tiny"):
        excel.TrainingFreeModel(clip, model.knowledge, excel.settings("voc", "cams.image_size=100"))
    masks = excel.TrainingFreeModel(clip, model.knowledge, excel.settings("demo", "train.supervision=masks"))
    with pytest.raises(SettingError, match="takes image-level labels"):
        excel.train(masks, [(scenes[0].image, scenes[0].labels)])


def test_training_resumes_from_its_checkpoint(clip, model, scenes, segmenter, tmp_path):
    settings = excel.settings("demo", *EDITS, "train.checkpoint_every=2")
    model, done = excel.TrainingFreeModel(clip, model.knowledge, settings), []

    def stop(iteration):
        if iteration == 3:
            raise KeyboardInterrupt

    photos = [(scene.image, scene.labels) for scene in scenes]
    with pytest.raises(KeyboardInterrupt):
        excel.train(model, photos, checkpoint=tmp_path / "c.pt", progress=stop)
    resumed = excel.train(model, photos, checkpoint=tmp_path / "c.pt", progress=done.append)
    assert done == [3, 4] and resumed.losses == segmenter.losses
