"""Predictors of single photos, without a store: class names alone, with the settings that fit few descriptions."""

import numpy as np
import pytest

from excel_core.config.presets import preset, with_settings
from excel_core.errors import SettingError
from excel_core.models.clip_weights import load_clip
from excel_core.prediction.predictors import parse_classes, training_free_predictor
from excel_core.text.embeddings import TextEmbeddings

FAST = ["clip.model=excel-tiny", "cams.image_size=64", "refine.crf.enabled=false", "dataset.prompts=data", "describe.n=4"]


@pytest.fixture(scope="module")
def clip():
    return load_clip("excel-tiny")


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    return TextEmbeddings(tmp_path_factory.mktemp("texts"))


@pytest.mark.parametrize("attributes", ["null", "112", "1"])
def test_any_number_of_attributes_fits_the_photos_few_descriptions(clip, embeddings, attributes):
    """`excel segment … --set knowledge.attributes=null` leaves their number open."""
    run = with_settings(preset("voc"), [*FAST, f"knowledge.attributes={attributes}"])
    predictor = training_free_predictor(("dog", "sofa"), run, clip, embeddings)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    label_maps = predictor.predict(image)
    assert list(label_maps) == ["raw", "affinity", "par"] and predictor.notes == ()
    assert all(labels.shape == (48, 64) and set(np.unique(labels)) <= {0, 1, 2} for labels in label_maps.values())


@pytest.mark.parametrize("attributes", ["null", "112"])
def test_names_without_descriptions_are_enriched_by_nothing(clip, embeddings, attributes):
    run = with_settings(preset("voc"), [*FAST, f"knowledge.attributes={attributes}"])
    (note,) = training_free_predictor(("axolotl",), run, clip, embeddings).notes
    assert note == "no descriptions of axolotl come with excel: the name alone is used, enriched by nothing"
    needs = with_settings(run, ["knowledge.mode=class_means"])
    training_free_predictor(("axolotl",), needs, clip, embeddings)  # of none of the classes: no enrichment at all
    with pytest.raises(SettingError, match="class_means needs descriptions of every class; none of axolotl"):
        training_free_predictor(("dog", "axolotl"), needs, clip, embeddings)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "expected 1 to 254 names"), (" , ", "expected 1 to"), ("dog, Dog", "'Dog' is given twice"), ("a{}", "no class name")],
)
def test_class_names_are_checked(text, message):
    with pytest.raises(SettingError, match=message):
        parse_classes(text)


def test_class_names_may_hold_spaces():
    assert parse_classes(" dog,potted   plant ,") == ("dog", "potted plant")
