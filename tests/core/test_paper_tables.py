"""Which runs stand in which row of the paper's tables, beside which published number."""

import pytest

from excel_core.config.presets import preset, with_settings
from excel_core.paper.published import COSTS, CURVE
from excel_core.paper.tables import TITLES, limit_run, paper_table_rows

VOC = preset("voc")
TABLES = [f"table-{number}" for number in range(1, 7)]

# The published figures by row, as they were printed, in per cent: facts, written here a second time.
PUBLISHED = {
    "table-1": {
        "VOC val, no CRF": 77.2,
        "VOC val, CRF": 78.4,
        "VOC test, no CRF": 77.3,
        "VOC test, CRF": 78.5,
    },
    "table-2": {"CLIP-ES, CAMs": 70.8, "CLIP-ES, CRF": 75.0, "ExCEL, training-free": 74.6, "ExCEL, LVC": 78.0},
    "table-3": {"baseline": 12.1, "SVC": 72.5, "SVC + TSE": 74.7, "SVC + LVC": 75.1, "SVC + TSE + LVC": 77.2},
    "table-4": {
        "none: each class's own descriptions": 75.1,
        "none: the class means as attributes": 75.1,
        "32": 75.8,
        "64": 76.2,
        "112": 77.2,
        "144": 77.0,
        "196": 76.5,
    },
    "table-5": {
        "CLIP's own q-k attention": 11.2,
        "MaskCLIP: value only in the last block": 65.8,
        "intra-correlation in the last block": 69.7,
        "SVC in the last 5 blocks": 74.6,
    },
    "table-6": {
        "image-level labels, no CRF": 77.2,
        "image-level labels, CRF": 78.4,
        "true masks: fully supervised, no CRF": None,
        "true masks: fully supervised, CRF": None,
    },
}
# Tables whose every number is segmentation at four scales without CRF.
TRAINED = ("table-3", "table-4")


def _rows(run, table, **options):
    return {number.row: number for number in paper_table_rows(run, table, **options)}


@pytest.mark.parametrize("table", TABLES)
def test_rows_and_published_numbers(table):
    rows = _rows(VOC, table, has_test=True)
    shown = {name: None if number.published is None else round(100 * number.published, 1) for name, number in rows.items()}
    assert shown == PUBLISHED[table] and table in TITLES
    for number in rows.values():
        assert number.run is None or not number.run.evaluate.ablation
    if table in TRAINED:
        assert {number.result for number in rows.values()} == {"segmentation.val.multi_scale"}


def test_coco_has_rows_of_its_own():
    rows = _rows(preset("coco"), "table-1", has_test=True)
    assert {name: round(100 * number.published, 1) for name, number in rows.items()} == {
        "COCO val, no CRF": 49.3,
        "COCO val, CRF": 50.3,
    }
    assert [number.result for number in rows.values()] == [
        "segmentation.val.multi_scale",
        "segmentation.val.multi_scale_crf",
    ]


def test_costs_and_the_log_are_of_their_data_sets():
    assert COSTS["voc", "training-free"] == "2.9 GB GPU" and COSTS["voc", "training"] == "90 min; 3.2 GB GPU"
    assert COSTS["coco", "training"] == "9 h 29 min" and ("coco", "training-free") not in COSTS
    log = {iteration: (100 * point.pseudo_labels, 100 * point.segmentation) for iteration, point in CURVE.items()}
    assert log == {
        2000: pytest.approx((76.0, 42.8)),
        6000: pytest.approx((77.4, 69.9)),
        12000: pytest.approx((77.0, 67.5)),
        16000: pytest.approx((77.3, 73.7)),
        24000: pytest.approx((77.1, 74.7)),
        30000: pytest.approx((77.07, 75.61)),
    }


def test_the_test_split_is_the_servers_to_score():
    without = _rows(VOC, "table-1")
    for name in ("VOC test, no CRF", "VOC test, CRF"):
        assert without[name].run is None and "get them from VOC's server" in without[name].note
    there = _rows(VOC, "table-1", has_test=True)
    assert [there[name].archive for name in PUBLISHED["table-1"]] == ["", "", "multi_scale", "multi_scale_crf"]
    assert there["VOC test, CRF"].run.dataset.test_splits == ("test",) and not there["VOC test, CRF"].note
    assert there["VOC val, CRF"].run.dataset.test_splits == ()


def test_seeds_are_scored_on_train_after_par():
    peer = _rows(VOC, "table-2")["CLIP-ES, CRF"].run
    assert peer == with_settings(preset("voc", "clip_es"), ["dataset.train_split=train"])
    assert [number.result for number in _rows(VOC, "table-2").values()] == [
        "seeds.static.train.affinity", "seeds.static.train.crf", "seeds.static.train.par", "seeds.lvc.train.par",
    ]  # fmt: skip
    for number in _rows(VOC, "table-5").values():
        assert number.result == "seeds.static.train.par"
        # Nothing is trained, so CAMs of train_aug are for nothing.
        assert number.run.evaluate.kinds == ("static",) and number.run.dataset.train_split == "train"


def test_what_the_rows_of_table_3_leave_out():
    found = {name: number.run for name, number in _rows(VOC, "table-3").items()}
    parts = {
        name: (run.cams.calibration.attention, run.knowledge.mode, run.train.dynamic_from, run.train.diversity_weight)
        for name, run in found.items()
    }
    assert parts == {
        "baseline": ("qk", "none", None, 0),
        "SVC": ("svc", "none", None, 0),
        "SVC + TSE": ("svc", "attributes", None, 0),
        "SVC + LVC": ("svc", "none", 14000, 0.1),
        "SVC + TSE + LVC": ("svc", "attributes", 14000, 0.1),
    }


def test_what_the_rows_of_tables_4_and_5_vary():
    texts = [(n.run.knowledge.mode, n.run.knowledge.attributes) for n in _rows(VOC, "table-4").values()]
    assert texts[:2] == [("own_descriptions", 112), ("class_means", 112)]
    assert texts[2:] == [("attributes", count) for count in (32, 64, 112, 144, 196)]
    calibrations = [n.run.cams.calibration for n in _rows(VOC, "table-5").values()]
    assert [(c.attention, c.depth) for c in calibrations] == [("qk", 5), ("v", 1), ("svc", 1), ("svc", 5)]
    assert {n.run.knowledge.mode for n in _rows(VOC, "table-5").values()} == {"attributes"}  # all with text enrichment


def test_table_6_trains_its_counterpart_on_masks_and_nothing_else():
    taught = {name: number.run.train.supervision for name, number in _rows(VOC, "table-6").items()}
    assert list(taught.values()) == ["labels", "labels", "masks", "masks"]
    assert all(("fully supervised" in name) == (how == "masks") for name, how in taught.items())
    others = [n.run for table in TABLES[:5] for n in paper_table_rows(VOC, table, True) if n.run is not None]
    assert {run.train.supervision for run in others} == {"labels"}


def test_ready_attributes_are_of_the_full_method_alone():
    run = with_settings(VOC, ["knowledge.attributes_file=bank.pth"])
    files = {name: number.run.knowledge.attributes_file for name, number in _rows(run, "table-4").items()}
    assert {name for name, file in files.items() if file} == {"112"}
    files = {name: number.run.knowledge.attributes_file for name, number in _rows(run, "table-3").items()}
    assert {name for name, file in files.items() if file} == {"SVC + TSE", "SVC + TSE + LVC"}


@pytest.mark.parametrize(
    ("table", "full"),
    [
        ("table-1", {"VOC val, no CRF", "VOC val, CRF", "VOC test, no CRF", "VOC test, CRF"}),
        ("table-2", {"ExCEL, training-free", "ExCEL, LVC"}),
        ("table-3", {"SVC + TSE + LVC"}),
        ("table-4", {"112"}),
        ("table-5", set()),
        ("table-6", {"image-level labels, no CRF", "image-level labels, CRF"}),
    ],
)
def test_a_checkpoint_goes_to_rows_of_the_full_method_alone(table, full):
    run = with_settings(VOC, ["train.from_checkpoint=c.pth"])
    rows = _rows(run, table, has_test=True)
    assert {name for name, n in rows.items() if n.run is not None and n.run.train.from_checkpoint == "c.pth"} == full


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", ["demo", "photos"])
def test_other_data_have_no_published_number(name, table):
    assert all(number.published is None for number in paper_table_rows(preset(name), table))


def test_a_limit_shortens_the_training_in_proportion():
    run = limit_run(VOC, 1058)  # a tenth of 10,582
    assert run.dataset.max_images == 1058 and run.dataset.partial
    train = run.train
    assert (train.iterations, train.warmup, train.dynamic_from, train.own_argmax_from) == (2999, 5, 1400, 2399)
    coco = limit_run(preset("coco"), 8208)
    assert (coco.train.iterations, coco.train.warmup, coco.train.dynamic_from) == (10000, 20, 3000)
    assert coco.train.own_argmax_from is None and not coco.dataset.partial  # its lists are what is there
    few = limit_run(VOC, 4).train
    assert (few.iterations, few.dynamic_from, few.own_argmax_from) == (20, 9, 16)  # every phase is tried out
    assert limit_run(VOC, 20_000).train == VOC.train
    demo = limit_run(preset("demo"), 2)
    assert demo.dataset.max_images == 2 and demo.train == preset("demo").train
