"""How many labels of a segmentation have a chance, and whether leaving out the others changes the dense CRF's labels.

    python -m bench.likely [--photos DIR] [--images 20] [--json FILE]

A segmenter is trained for a few minutes on real photos through the tiny CLIP, far from converged, so that its
probabilities are spread widely: a trained one leaves fewer labels. Then its validation photos, at several scales, are
refined over all labels and over those that exceed a bound somewhere, beside pydensecrf over all.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import flows  # noqa: F401  before torch

import numpy as np  # isort: skip
import torch

from bench.published import crf_of_all_labels
from bench.scene import PHOTOS
from excel_core.cams.crf import dense_crf
from excel_core.config.presets import preset, with_settings
from excel_core.prediction.inference import segment_multi_scale
from tasks.chain import follow
from tasks.engine.build import run_stage
from tasks.engine.stage import RunEnvironment, Work
from tasks.inputs.cam_model import load_cam_model
from tasks.inputs.records import records
from tasks.train import STAGE, trained_segmenter

BOUNDS = (0.0, 0.001, 0.01, 0.02, 0.05)
SETTINGS = [
    "dataset.train_split=train", "clip.model=excel-tiny", "cams.image_size=160", "train.crop=160", "train.iterations=200",
    "train.dynamic_from=150",
]  # fmt: skip


def measure(photos: Path, images: int) -> dict[str, Any]:
    """By bound: labels kept, seconds, the least and mean share of pixels with the label that all labels give."""
    run = with_settings(preset("voc"), SETTINGS)
    with tempfile.TemporaryDirectory() as store:
        place = RunEnvironment(store=Path(store), data=photos)
        outputs = follow(run, place, "train", run_stage)
        work = Work(STAGE, run, place, outputs)
        cam_model = load_cam_model(work)
        segmenter, rows = trained_segmenter(work, cam_model), records(work, "val")[:images]
        kept: dict[float, list[dict[str, float]]] = {bound: [] for bound in BOUNDS}
        published = []
        for row in rows:
            image = row.read()
            with torch.inference_mode():
                logits = segment_multi_scale(cam_model, segmenter, image, run.predict)
            probabilities = torch.softmax(logits, dim=0).numpy()
            started = time.perf_counter()
            expected = crf_of_all_labels(image, probabilities).argmax(axis=0)
            published.append(time.perf_counter() - started)
            for bound, found in kept.items():
                spec = run.refine.crf.model_copy(update={"least_probability": bound})
                started = time.perf_counter()
                labels = dense_crf(image, probabilities, spec).argmax(axis=0)
                seconds = time.perf_counter() - started
                count = int((probabilities.max(axis=(1, 2)) > bound).sum())
                found.append({"labels": count, "seconds": seconds, "equal": float(np.mean(labels == expected))})
    return {
        "format": "excel-likely/1",
        "images": len(rows),
        "published_seconds": statistics.median(published),
        "bounds": [
            {
                "bound": bound,
                "labels": statistics.mean(one["labels"] for one in found),
                "seconds": statistics.median(one["seconds"] for one in found),
                "ratio": statistics.median(them / one["seconds"] for them, one in zip(published, found, strict=True)),
                "equal_labels": statistics.mean(one["equal"] for one in found),
                "least_equal_labels": min(one["equal"] for one in found),
            }
            for bound, found in kept.items()
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.photos, arguments.images)
    for one in result["bounds"]:
        print(one)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
