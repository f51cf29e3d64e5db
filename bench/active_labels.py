"""How many labels of a segmentation are active somewhere, and whether leaving out the others changes the dense CRF's labels.

    python -m bench.active_labels [--photos DIR] [--images 20] [--json FILE]

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
from tasks.engine.executor import build_stage
from tasks.engine.stage import Job, RunEnvironment
from tasks.inputs.images import images_of
from tasks.inputs.models import load_cam_model, load_trained
from tasks.pipeline import STAGES, pipeline

BOUNDS = (0.0, 0.001, 0.01, 0.02, 0.05)
SETTINGS = [
    "dataset.train_split=train", "clip.model=excel-tiny", "cams.image_size=160", "train.crop=160", "train.iterations=200",
    "train.dynamic_from=150",
]  # fmt: skip


def measure(photos: Path, images: int) -> dict[str, Any]:
    """By bound: number of active labels, seconds, and the share of pixels labelled as by all labels, in the mean and at
    least."""
    run = with_settings(preset("voc"), SETTINGS)
    with tempfile.TemporaryDirectory() as store:
        environment = RunEnvironment(store=Path(store), data=photos)
        outputs = pipeline(run, environment, "train").follow(build_stage)
        job = Job(STAGES["train"], run, environment, outputs)
        cam_model = load_cam_model(job)
        segmenter, records = load_trained(job, cam_model), images_of(job, "val")[:images]
        by_bound: dict[float, list[dict[str, float]]] = {bound: [] for bound in BOUNDS}
        published_seconds = []
        for record in records:
            image = record.read()
            with torch.inference_mode():
                (logits,) = segment_multi_scale(cam_model, segmenter, [image], run.predict)
            probabilities = torch.softmax(logits, dim=0).numpy()
            started = time.perf_counter()
            expected = crf_of_all_labels(image, probabilities).argmax(axis=0)
            published_seconds.append(time.perf_counter() - started)
            for bound, measurements in by_bound.items():
                spec = run.refine.crf.model_copy(update={"least_probability": bound})
                started = time.perf_counter()
                labels = dense_crf(image, probabilities, spec).argmax(axis=0)
                seconds = time.perf_counter() - started
                active = int((probabilities.max(axis=(1, 2)) > bound).sum())
                equal = float(np.mean(labels == expected))
                measurements.append({"labels": active, "seconds": seconds, "equal": equal})
    return {
        "format": "excel-active-labels/1",
        "images": len(records),
        "published_seconds": statistics.median(published_seconds),
        "bounds": [_summary(bound, measurements, published_seconds) for bound, measurements in by_bound.items()],
    }


def _summary(bound: float, measurements: list[dict[str, float]], published_seconds: list[float]) -> dict[str, float]:
    """One bound over all photos."""
    seconds = [one["seconds"] for one in measurements]
    return {
        "bound": bound,
        "labels": statistics.mean(one["labels"] for one in measurements),
        "seconds": statistics.median(seconds),
        "ratio": statistics.median(theirs / ours for theirs, ours in zip(published_seconds, seconds, strict=True)),
        "equal_labels": statistics.mean(one["equal"] for one in measurements),
        "least_equal_labels": min(one["equal"] for one in measurements),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.photos, arguments.images)
    for bound in result["bounds"]:
        print(bound)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
