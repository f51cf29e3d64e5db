"""The rows of the paper's tables 1 to 6: for each row the run, its result, and the published number beside it.

A table is made for one run, and so for one data set; table 1, which has rows of VOC and of COCO, is made for a run of each.
Published numbers stand beside the presets `voc` and `coco` alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from excel_core.config import RunSpec
from excel_core.config.presets import with_edits, with_iterations, with_method
from excel_core.config.variants import (
    NO_ATTRIBUTES,
    calibrated_by,
    with_attributes,
    without_attributes,
    without_lvc,
    without_tse,
)
from excel_core.paper.published import ATTRIBUTES, CALIBRATION, COMPONENTS, IMAGES, PEER_SEEDS, SEEDS, SEGMENTATION

__all__ = ["TITLES", "TableRow", "limit_run", "paper_table_rows"]

TITLES = {
    "table-1": "Table 1: segmentation",
    "table-2": "Table 2: CAM seeds",
    "table-3": "Table 3: components, a training a row",
    "table-4": "Table 4: number of attributes, a training a row",
    "table-5": "Table 5: calibration, CAM seeds without training",
    "table-6": "Table 6: a fully supervised counterpart",
    "table-7": "Table 7: time and memory",
}
MIN_ITERATIONS = 20  # of a training that a limit shortens
VARIANTS = {"no CRF": "multi_scale", "CRF": "multi_scale_crf"}  # words of a row → label maps that `predict` makes
README = "published in its README"
UNKNOWN = "published figure not known to excel"


@dataclass(frozen=True)
class TableRow:
    """One row of a table, with one number: the row's name, the run that gives the number, its key in metrics.json, the
    `published` mIoU in [0, 1], and a note. Without `run` nothing is computed. With `archive` VOC's server gives the number:
    label maps of that variant of the test split are packed for it."""

    row: str
    run: RunSpec | None
    result: str = ""
    published: float | None = None
    note: str = ""
    archive: str = ""


def paper_table_rows(run: RunSpec, table: str, has_test: bool = False) -> list[TableRow]:
    """The rows of a table of `run`, in order. `has_test`: whether the data have the images of the split test."""
    tables: dict[str, Callable[[RunSpec], list[TableRow]]] = {
        "table-1": lambda run: _segmentation(run, has_test),
        "table-2": _seeds,
        "table-3": _components,
        "table-4": _attributes,
        "table-5": _calibration,
        "table-6": _supervision,
    }
    rows = tables[table](with_edits(run, {"evaluate": {"ablation": False}})) if table in tables else []
    return rows if run.preset in IMAGES else [replace(row, published=None) for row in rows]


def limit_run(run: RunSpec, images: int) -> RunSpec:
    """`run` on the first `images` of each split, with a training shortened in proportion: to try it out."""
    limited = with_edits(run, {"dataset": {"max_images": images, "partial": run.dataset.layout == "voc"}})
    if not run.train.enabled or images >= IMAGES.get(run.preset, 0):
        return limited
    return with_iterations(limited, max(MIN_ITERATIONS, round(run.train.iterations * images / IMAGES[run.preset])))


def _of(run: RunSpec, *kinds: str, **dataset: object) -> RunSpec:
    """`run` with these kinds of results scored alone, and other fields of `dataset`."""
    return with_edits(run, {"evaluate": {"kinds": kinds}, "dataset": dataset})


def _segmentation(run: RunSpec, has_test: bool) -> list[TableRow]:
    split, name = run.dataset.val_splits[0], run.preset.upper()
    scored, published = _of(run, "segmentation"), SEGMENTATION.get((run.preset, "val"), (None, None))
    rows = [
        TableRow(f"{name} {split}, {words}", scored, f"segmentation.{split}.{variant}", figure)
        for (words, variant), figure in zip(VARIANTS.items(), published, strict=True)
    ]
    if run.preset == "voc":
        tested = _of(run, "segmentation", test_splits=("test",)) if has_test else None
        note = "" if has_test else "VOC's test images are not there: get them from VOC's server (excel doctor voc)"
        rows += [
            TableRow(f"{name} test, {words}", tested, "", figure, note, variant)
            for (words, variant), figure in zip(VARIANTS.items(), SEGMENTATION["voc", "test"], strict=True)
        ]
    return rows


def _seeds(run: RunSpec) -> list[TableRow]:
    split, scored = run.dataset.seed_splits[0], _of(run, "static", "lvc")
    peer = _of(with_method(_trained_here(run), "clip_es"), "static", train_split=split)
    return [
        TableRow("CLIP-ES, CAMs", peer, f"seeds.static.{split}.affinity", PEER_SEEDS["clip_es", "affinity"], README),
        TableRow("CLIP-ES, CRF", peer, f"seeds.static.{split}.crf", PEER_SEEDS["clip_es", "crf"], f"{README}, on train_aug"),
        TableRow("ExCEL, training-free", scored, f"seeds.static.{split}.par", SEEDS["static"]),
        TableRow("ExCEL, LVC", scored, f"seeds.lvc.{split}.par", SEEDS["lvc"]),
    ]


def _components(run: RunSpec) -> list[TableRow]:
    plain = without_tse(_trained_here(run))
    runs = {
        "baseline": without_lvc(calibrated_by(plain, "qk")),
        "SVC": without_lvc(plain),
        "SVC + TSE": without_lvc(_trained_here(run)),
        "SVC + LVC": plain,
        "SVC + TSE + LVC": run,
    }
    return [_trained(name, variant, COMPONENTS[name]) for name, variant in runs.items()]


def _attributes(run: RunSpec) -> list[TableRow]:
    trained = _trained_here(run)
    rows = [
        _trained(f"none: {reading}", without_attributes(trained, mode), ATTRIBUTES[0])
        for reading, mode in NO_ATTRIBUTES.items()
    ]
    for count in filter(None, ATTRIBUTES):
        variant = run if count == run.knowledge.attributes else with_attributes(trained, count)
        rows.append(_trained(str(count), variant, ATTRIBUTES[count]))
    return rows


def _trained_here(run: RunSpec) -> RunSpec:
    """`run` with a training of its own: a checkpoint is one of the full method."""
    return with_edits(run, {"train": {"from_checkpoint": None}})


def _trained(row: str, run: RunSpec, published: float) -> TableRow:
    """Segmentation of the first validation split, four scales, no CRF."""
    split = run.dataset.val_splits[0]
    return TableRow(row, _of(run, "segmentation"), f"segmentation.{split}.multi_scale", published)


def _calibration(run: RunSpec) -> list[TableRow]:
    """Nothing is trained, so CAMs of the seed split are enough."""
    split, run = run.dataset.seed_splits[0], _trained_here(run)
    runs = {
        "q-k": calibrated_by(run, "qk"),
        "value only": calibrated_by(run, "v", depth=1),
        "last block": calibrated_by(run, "svc", depth=1),
        "SVC": run,
    }
    names = {
        "q-k": "CLIP's own q-k attention",
        "value only": "MaskCLIP: value only in the last block",
        "last block": "intra-correlation in the last block",
        "SVC": f"SVC in the last {run.cams.calibration.depth} blocks",
    }
    return [
        TableRow(names[key], _of(variant, "static", train_split=split), f"seeds.static.{split}.par", CALIBRATION[key])
        for key, variant in runs.items()
    ]


def _supervision(run: RunSpec) -> list[TableRow]:
    split = run.dataset.val_splits[0]
    published = dict(zip(VARIANTS.values(), SEGMENTATION.get((run.preset, "val"), (None, None)), strict=True))
    masks = with_edits(run, {"train": {"supervision": "masks", "from_checkpoint": None}})
    rows = []
    for words, variant in VARIANTS.items():
        key = f"segmentation.{split}.{variant}"
        rows.append(TableRow(f"image-level labels, {words}", _of(run, "segmentation"), key, published[variant]))
        rows.append(TableRow(f"true masks: fully supervised, {words}", _of(masks, "segmentation"), key, None, UNKNOWN))
    return sorted(rows, key=lambda row: row.row.startswith("true"))
