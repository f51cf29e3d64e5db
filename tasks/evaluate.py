"""Stage `evaluate`: the only one that opens masks. CAM seeds, pseudo labels, segmentation, ablation → metrics.json.

metrics.json (excel-metrics/1): `results` maps a key to its `protocol` and scores; `ablation` holds the rows of the
ablation and the zero-shot presence mAP; `skipped` says what could not be scored and why. Keys:

    seeds.<static|lvc>.<split>.<raw|affinity|par|crf>      label maps of image-level classes against the truth
    segmentation.<split>.<single_scale|multi_scale|multi_scale_crf>
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from excel_core.config import EvaluateSpec, RunSpec
from excel_core.crf import dense_crf
from excel_core.datasets.truth import MASK_FOLDERS, TruthDoor
from excel_core.inference import segment_multi_scale, segment_single_scale
from excel_core.metrics import confusion_matrix, scores
from excel_core.palette import load_labels_png, save_labels_png
from excel_core.stores import write_json
from tasks.ablate import ablate
from tasks.fingerprint import clip_fingerprint, folders_fingerprint
from tasks.progress import track
from tasks.refine import step_folder
from tasks.stage import Place, Stage, StageOutput, Work
from tasks.train import trained_segmenter
from tasks.vision import Record, classes_of, load_vision, records

__all__ = ["SHOWN_TRUTHS", "STAGE"]

REFINEMENT = {
    "raw": "raw",
    "affinity": "affinity",
    "par": "PAR",
    "crf": "CRF",
}
SHOWN_TRUTHS = 24
Labels = NDArray[np.uint8]


class _Scorer:
    """Collects results under their protocol keys against the masks of the data folder."""

    def __init__(self, work: Work) -> None:
        assert work.place.data is not None
        self.door = TruthDoor(work.place.data)
        self.names = ("background", *classes_of(work))
        self.results: dict[str, Any] = {}
        self.skipped: dict[str, str] = {}
        self._masked: dict[str, list[Record]] = {}
        self.work = work

    def masked(self, split: str, what: str) -> list[Record]:
        """Records of a split that have a mask, at most evaluate.max_images; what is left out is said under `what`."""
        if split not in self._masked:
            rows = records(self.work, split)[: self.work.run.evaluate.max_images]
            folder = self.door.root / self.door.folder
            self._masked[split] = [row for row in rows if (folder / f"{row.id}.png").is_file()]
            missing = len(rows) - len(self._masked[split])
            if missing:
                self.skipped[f"{split}: {missing} of {len(rows)} images"] = f"no mask in {self.door.folder}"
        if not self._masked[split]:
            self.skipped[what] = f"split {split!r} has no masks in {self.door.folder}"
        return self._masked[split]

    def truth(self, row: Record) -> Labels:
        """The mask of one image."""
        return self.door.read(row.id, row.height, row.width)

    def copy_truths(self) -> None:
        """Keep the first masks of each split, so that the report can show them without opening one."""
        for split, rows in self._masked.items():
            for row in rows[:SHOWN_TRUTHS]:
                save_labels_png(self.work.folder / "truth" / split / f"{row.id}.png", self.truth(row))

    def score(self, key: str, protocol: dict[str, Any], pairs: Iterable[tuple[Labels, Labels]]) -> None:
        """Add the scores of (truth, prediction) pairs."""
        matrix = np.zeros((len(self.names),) * 2, dtype=np.int64)
        images = 0
        for truth, prediction in pairs:
            matrix += confusion_matrix(truth, prediction, len(self.names))
            images += 1
        self.put(key, protocol, matrix, images)

    def put(self, key: str, protocol: dict[str, Any], matrix: NDArray[np.int64], images: int) -> None:
        """Add the scores of a confusion matrix over `images` images."""
        if images:
            self.results[key] = {"protocol": protocol | {"images": images}} | scores(matrix, self.names).to_json()


@torch.inference_mode()
def build_evaluate(work: Work) -> dict[str, Any]:
    """Score everything that has a truth; what has none is skipped with a word."""
    scorer = _Scorer(work)
    _score_seeds(scorer, "static", "CAM seed", work.inputs["refine"])
    _score_seeds(scorer, "lvc", "CAM seed with LVC", work.inputs["dynamic"])
    for split in work.run.dataset.val_splits:
        _score_segmentation(scorer, split)
    ablation: dict[str, Any] = {}
    if work.run.evaluate.ablation:
        rows = {split: scorer.masked(split, "ablation") for split in work.run.dataset.val_splits}
        ablation = ablate(work, {split: found for split, found in rows.items() if found}, scorer.truth)
    metrics = {
        "format": "excel-metrics/1",
        "preset": work.run.preset,
        "method": work.run.method,
        "clip": work.run.clip.model,
        "results": scorer.results,
        "ablation": ablation,
        "skipped": scorer.skipped,
    }
    scorer.copy_truths()
    write_json(work.folder / "metrics.json", metrics)
    return {key: round(result["miou"], 4) for key, result in scorer.results.items()}


def _score_seeds(scorer: _Scorer, kind: str, what: str, output: StageOutput) -> None:
    split = scorer.work.run.dataset.train_split
    rows = scorer.masked(split, f"seeds.{kind}.{split}")
    steps: list[str] = output.summary["steps"]
    for position, step in enumerate(steps):
        last = step == steps[-1]
        protocol = {
            "what": f"{what}, the pseudo labels" if last else what,
            "split": split,
            "labels": "image-level ground truth",
            "refinement": "+".join(REFINEMENT[s] for s in steps[: position + 1] if s != "raw") or "raw",
            "scales": "single",
        }
        folder = output.folder / step_folder(step, steps)
        pairs = ((scorer.truth(row), load_labels_png(folder / f"{row.id}.png")) for row in rows)
        scorer.score(f"seeds.{kind}.{split}.{step}", protocol, pairs)


def _score_segmentation(scorer: _Scorer, split: str) -> None:
    """Predict each image once a protocol; single-scale predictions are kept as PNGs for the report."""
    work, spec = scorer.work, scorer.work.run.evaluate
    rows = scorer.masked(split, f"segmentation.{split}")
    if not rows:
        return
    vision = load_vision(work)
    segmenter = trained_segmenter(work, vision)
    vision = replace(vision, spec=vision.spec.model_copy(update={"image_size": spec.image_size}))
    matrices: dict[str, NDArray[np.int64]] = {}
    for row in track(rows, split, len(rows)):
        image, truth = row.read(), scorer.truth(row)
        single = segment_single_scale(vision, segmenter, image)
        multi = segment_multi_scale(vision, segmenter, image, spec)
        predictions = {"single_scale": _argmax(single), "multi_scale": _argmax(multi)}
        if spec.crf:
            probabilities = torch.softmax(multi, dim=0).cpu().numpy()
            refined = dense_crf(image, probabilities, work.run.refine.crf)
            predictions["multi_scale_crf"] = refined.argmax(axis=0).astype(np.uint8)
        save_labels_png(work.folder / "segmentation" / split / f"{row.id}.png", predictions["single_scale"])
        for name, prediction in predictions.items():
            matrix = confusion_matrix(truth, prediction, len(scorer.names))
            matrices[name] = matrices.get(name, np.zeros_like(matrix)) + matrix
    for name, matrix in matrices.items():
        scorer.put(f"segmentation.{split}.{name}", _segmentation_protocol(name, split, spec), matrix, len(rows))


def _segmentation_protocol(name: str, split: str, spec: EvaluateSpec) -> dict[str, Any]:
    flips = "flip" if spec.flip == "all" else "flip except at 1.0"
    scales = "single" if name == "single_scale" else f"{','.join(map(str, spec.scales))} + {flips}"
    return {
        "what": "segmentation",
        "split": split,
        "labels": "none",
        "refinement": "CRF" if name.endswith("crf") else "none",
        "scales": scales,
    }


def _argmax(logits: torch.Tensor) -> Labels:
    return logits.argmax(dim=0).cpu().numpy().astype(np.uint8)


def _spec(run: RunSpec) -> dict[str, Any]:
    return {
        "evaluate": run.evaluate.model_dump(mode="json"),
        "cams": run.cams.model_dump(mode="json"),
        "crf": run.refine.crf.model_dump(mode="json", exclude={"enabled"}),
        "segmenter": run.train.segmenter.model_dump(mode="json"),
        "splits": [run.dataset.train_split, *run.dataset.val_splits],
        "names": [run.preset, run.method, run.clip.model],
    }


def _outside(run: RunSpec, place: Place) -> Any:
    return [clip_fingerprint(run, place), folders_fingerprint(place.data, *MASK_FOLDERS)]


STAGE = Stage(
    "evaluate",
    ("dataset", "describe", "knowledge", "refine", "train", "dynamic"),
    _spec,
    build_evaluate,
    outside=_outside,
    sees_masks=True,
)
