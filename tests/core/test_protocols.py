"""The words beside a number say how it came about."""

from excel_core.config.presets import preset, with_settings
from excel_core.evaluation.protocols import refinement_words, seed_protocol, segmentation_protocol


def test_the_crf_says_of_what_and_how():
    run = preset("voc")
    assert [refinement_words(run, step) for step in ("raw", "affinity", "par", "crf")] == [
        "raw", "affinity", "affinity+PAR", "affinity+PAR+CRF",
    ]  # fmt: skip
    published = with_settings(run, ["refine.crf.of=affinity", "refine.crf.normalised=false"])
    assert refinement_words(published, "crf") == "affinity+CRF (not normalised)"
    assert refinement_words(published, "par") == "affinity+PAR"
    assert refinement_words(preset("voc", "clean"), "par") == "affinity+PAR (photo)"


def test_scales_and_mirror():
    voc, coco = preset("voc"), preset("coco")
    assert seed_protocol(voc, "lvc", "train", "par")["scales"] == "single, with mirror"
    assert seed_protocol(voc, "static", "train", "par")["scales"] == "single"
    assert segmentation_protocol(voc, "val", "multi_scale")["scales"] == "0.7,1.0,1.2,1.5 + flip except at 1.0"
    scales = segmentation_protocol(coco, "val", "multi_scale")["scales"]
    assert scales == "0.7,1.0,1.2,1.5 + flip, averaged at 0.2 of the size"


def test_a_fully_supervised_number_says_so():
    run = with_settings(preset("voc"), ["train.supervision=masks"])
    found = segmentation_protocol(run, "val", "single_scale")
    assert found["what"] == "segmentation, fully supervised" and found["supervision"].startswith("true masks")
    assert "supervision" not in seed_protocol(run, "static", "train", "par")  # nothing trained had a part in it
    assert seed_protocol(run, "lvc", "train", "par")["what"].endswith("fully supervised")
    assert segmentation_protocol(preset("voc"), "val", "single_scale")["method"] == "excel:reference"
