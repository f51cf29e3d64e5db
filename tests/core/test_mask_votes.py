"""Masks that vote on label maps: the rule by hand, files that are read with bounds, and a real promptable segmenter."""

import json

import numpy as np
import pytest

from excel_core.cams.mask_votes import voted_labels
from excel_core.cams.pseudo_labels import crf_source, step_names, voted_step
from excel_core.config import RefineSpec, VoteSpec
from excel_core.config.presets import preset, with_settings
from excel_core.datasets import mask_proposals
from excel_core.datasets.mask_guard import forbid_mask_access
from excel_core.datasets.mask_proposals import Proposals, proposals_file, read_proposals, write_proposals
from excel_core.datasets.run_lengths import encode_mask, read_runs
from excel_core.errors import DataError, MaskLeakError, ModelError, SettingError
from excel_core.evaluation.protocols import seed_protocol
from excel_core.models.mask_proposer import MaskProposer
from tests.core.promptable_toy import write_toy

SIZE = (10, 12)


def area(rows, columns, size=SIZE):
    mask = np.zeros(size, dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def proposals(*masks):
    return Proposals(tuple(read_runs(encode_mask(mask)) for mask in masks))


def labels(*regions):
    found = np.zeros(SIZE, dtype=np.uint8)
    for value, mask in regions:
        found[mask] = value
    return found


def test_a_mask_that_lies_mostly_in_a_label_becomes_it():
    before = labels((3, area((2, 6), (2, 6))))
    inside = area((2, 6), (4, 7))  # 8 of 12 pixels in the label
    expected = before.copy()
    expected[inside] = 3
    np.testing.assert_array_equal(voted_labels(before, proposals(inside), VoteSpec()), expected)


def test_half_is_not_more_than_half():
    before = labels((3, area((2, 6), (2, 6))))
    half = area((2, 6), (4, 8))  # 8 of 16 pixels, half of the label
    np.testing.assert_array_equal(voted_labels(before, proposals(half), VoteSpec()), before)
    assert (voted_labels(before, proposals(half), VoteSpec(inside=0.49))[half] == 3).all()


@pytest.mark.parametrize("columns,taken", [(17, True), (16, False)])
def test_a_mask_that_covers_85_percent_of_a_label_becomes_it(columns, taken):
    before = np.zeros((10, 40), dtype=np.uint8)
    before[0, :20] = 5
    mask = area((0, 10), (0, columns), (10, 40))  # 17 or 16 of the label's 20 pixels, and far more of background
    after = voted_labels(before, proposals(mask), VoteSpec())
    assert (after[mask] == 5).all() == taken
    assert (after[~mask] == before[~mask]).all()


def test_background_takes_no_mask_and_where_none_speaks_the_label_stays():
    before = labels((1, area((0, 3), (0, 3))), (2, area((5, 9), (5, 9))))
    after = voted_labels(before, proposals(area((0, 5), (6, 12)), area((5, 9), (5, 8))), VoteSpec())
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(voted_labels(before, Proposals(), VoteSpec()), before)


@pytest.mark.parametrize("turned", [False, True])
def test_the_smaller_of_two_masks_lies_above(turned):
    before = labels((1, area((0, 10), (0, 7))), (2, area((2, 6), (2, 6))))
    large, small = area((0, 10), (0, 8)), area((2, 6), (2, 7))
    after = voted_labels(before, proposals(*([small, large] if turned else [large, small])), VoteSpec())
    expected = labels((1, large), (2, small))
    np.testing.assert_array_equal(after, expected)


def test_of_two_classes_the_one_with_more_pixels_takes_the_mask():
    before = labels((1, area((0, 2), (0, 3))), (2, area((4, 8), (0, 4))))
    mask = area((0, 10), (0, 8))  # covers both labels whole
    assert set(np.unique(voted_labels(before, proposals(mask), VoteSpec())[mask])) == {2}


def test_files_are_read_as_they_were_written(tmp_path):
    masks = [area((1, 4), (2, 9)), area((0, 10), (0, 12)), area((3, 3), (0, 0))]
    assert write_proposals(tmp_path / "a.json", masks) == 3
    read = read_proposals(tmp_path / "a.json", *SIZE)
    assert read.broken == 0
    for written, back in zip(masks, read.areas(), strict=True):
        np.testing.assert_array_equal(back, written)


def test_the_form_of_sa_1b_is_read_too(tmp_path):
    entries = [{"segmentation": encode_mask(area((1, 4), (2, 9))), "predicted_iou": 0.9, "bbox": [2, 1, 7, 3]}]
    (tmp_path / "a.json").write_text(json.dumps({"image": {"image_id": 1}, "annotations": entries}))
    assert next(iter(read_proposals(tmp_path / "a.json", *SIZE).areas())).sum() == 21


@pytest.mark.parametrize(
    "entry,problem",
    [
        (7, "no RLE"),
        ({"counts": [120]}, "without its size"),
        ({"size": [12, 10], "counts": [120]}, "12 by 10 in an image of 10 by 12"),
        ({"size": [10, 12], "counts": [10**12, 3]}, "do not fill"),
        ({"size": [10, 12], "counts": [130, -10]}, "do not fill"),
        ({"size": [10, 12], "counts": [1e9]}, "neither whole numbers"),
        ({"size": [10, 12], "counts": "PPPPPPPPPPPPPP"}, "do not fill"),
        ({"segmentation": [[0, 0, 5, 5, 0, 5]]}, "no RLE"),
    ],
)
def test_a_broken_mask_is_left_out_and_counted(tmp_path, entry, problem):
    (tmp_path / "a.json").write_text(json.dumps([entry, encode_mask(area((1, 4), (2, 9)))]))
    read = read_proposals(tmp_path / "a.json", *SIZE)
    assert len(read.masks) == 1 and read.broken == 1 and problem in read.problem


@pytest.mark.parametrize(
    "text,message", [("{", "not readable as JSON"), ("{}", "expected a list"), ("[" * 10**5, "not readable"), ("3", "got int")]
)
def test_a_file_of_another_form_is_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_proposals(tmp_path / "a.json", *SIZE)


def test_files_are_bounded(tmp_path, monkeypatch):
    write_proposals(tmp_path / "a.json", [area((1, 4), (2, 9))] * 3)
    monkeypatch.setattr(mask_proposals, "MAX_PROPOSALS", 2)
    with pytest.raises(DataError, match="3 masks, expected at most 2"):
        read_proposals(tmp_path / "a.json", *SIZE)
    monkeypatch.setattr(mask_proposals, "MAX_FILE_BYTES", 20)
    with pytest.raises(DataError, match="bytes of masks, expected at most 20"):
        read_proposals(tmp_path / "a.json", *SIZE)
    with pytest.raises(DataError, match="one file name"):
        proposals_file(tmp_path, "../a")


def test_proposals_are_no_way_to_the_truth(tmp_path):
    """A folder of masks of the data set stays closed, also as a source of proposals."""
    place = tmp_path / "SegmentationClass"
    place.mkdir()
    write_proposals(place / "a.json", [area((1, 4), (2, 9))])
    with forbid_mask_access(stage="proposals"), pytest.raises(MaskLeakError):
        read_proposals(place / "a.json", *SIZE)


def test_votes_come_last_and_are_marked():
    run = with_settings(preset("voc"), ["refine.votes.enabled=true"])
    assert step_names(run.refine) == ["raw", "affinity", "par", "crf", "votes"] and voted_step(run.refine) == "par"
    assert step_names(RefineSpec()) == ["raw", "affinity", "par", "crf"]
    protocol = seed_protocol(run, "static", "train", "votes")
    assert protocol["supervision"] == "image-level labels +SAM" and "+SAM" in protocol["what"]
    assert protocol["refinement"] == "affinity+PAR+mask votes"
    for step in ("raw", "affinity", "par", "crf"):
        assert "supervision" not in seed_protocol(run, "static", "train", step)
    after_crf = with_settings(run, ["refine.votes.of=crf"])
    assert seed_protocol(after_crf, "static", "train", "votes")["refinement"] == "affinity+PAR+CRF+mask votes"


def test_masks_never_vote_on_maps_that_leave_pixels_without_a_label():
    """255 is no class: with CLIP-ES's `confident` step, votes are on the CRF's own labels."""
    voted = {"votes": {"enabled": True, "of": "crf"}, "crf": {"confidence": 0.9, "of": "affinity"}}
    spec = RefineSpec.model_validate(voted)
    assert step_names(spec) == ["raw", "affinity", "par", "crf", "confident", "votes"]
    assert voted_step(spec) == "crf" and crf_source(spec) == "affinity"
    assert voted_step(RefineSpec.model_validate(voted | {"votes": {"enabled": True}})) == "par"


def test_a_promptable_segmenter_proposes(tmp_path):
    pytest.importorskip("transformers", reason="the extra sam")
    write_toy(tmp_path / "sam")
    photo = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    masks = list(MaskProposer(str(tmp_path / "sam")).propose(photo))
    assert all(mask.shape == (48, 60) and mask.dtype == bool for mask in masks)


def test_a_model_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("transformers", reason="the extra sam")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="refine.votes.model"):
        MaskProposer(str(tmp_path / "empty"))


def test_without_the_extra_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr("excel_core.models.mask_proposer.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install .*refine\.votes\.masks"):
        MaskProposer("facebook/sam-vit-base")
