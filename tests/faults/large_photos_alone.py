"""Peak memory of each stage over one large photo, in a process of its own: python -m tests.faults.large_photos_alone MEGAPIXELS
PRESET LAST SETTING … prints one JSON object. Run by test_large_photos_memory.py."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from excel_core.config import RunSpec
from excel_core.config.presets import preset, with_settings
from excel_core.datasets.palette import save_labels_png
from excel_core.world.scenes import render_scene
from tasks.engine.memory import MemoryWatch
from tasks.engine.stage import RunEnvironment
from tests.pipeline_runs import follow
from tests.voc_folder import write_voc

# A small CLIP and little training: what is measured grows with the photo alone.
SMALL = [
    "clip.model=excel-tiny", "cams.image_size=128", "predict.image_size=128", "train.crop=128", "train.iterations=2",
    "train.batch_size=1", "train.dynamic_from=1", "train.own_argmax_from=1", "train.segmenter.width=16", "describe.n=4",
    "knowledge.attributes=8", "report.gallery_images=1",
]  # fmt: skip
# Of preset `coco`, on VOC's layout.
COCO = ["refine.affinity.threshold=0.88", "predict.flip=all", "predict.average_at=0.2", "shards.keep_attention=False"]
LARGE = {"2007_000032": "train", "2007_000033": "val"}


def large_photo(megapixels: float, seed: int = 3) -> Image.Image:
    """A drawn scene, 3 : 2, with a camera's noise."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(megapixels * 1e6 / height)
    scene = Image.fromarray(render_scene(seed, 512).image).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(scene).copy()
    draw = np.random.default_rng(seed)
    for rows in np.array_split(pixels, max(1, round(megapixels))):
        rows[:] = np.clip(rows + draw.normal(0, 2, rows.shape).astype(np.float32), 0, 255)
    return Image.fromarray(pixels)


def write_photos(folder: Path, megapixels: float) -> None:
    """A VOC folder with one large photo in `train` and one in `val`, and their masks."""
    write_voc(folder)
    photo = large_photo(megapixels)
    for name, split in LARGE.items():
        photo.save(folder / "JPEGImages" / f"{name}.jpg", quality=92)
        save_labels_png(folder / "SegmentationClass" / f"{name}.png", np.ones((photo.height, photo.width), np.uint8))
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{name}\n")


def small_run(name: str, settings: list[str]) -> RunSpec:
    """The preset's way over a small model."""
    of_preset = {"voc": [], "coco": COCO}[name]
    splits = ["dataset.train_split=train", "dataset.seed_splits=[train]", "dataset.val_splits=[val]"]
    return with_settings(preset("voc"), SMALL + splits + of_preset + settings)


def main(megapixels: float, name: str, last: str, settings: list[str]) -> dict[str, Any]:
    """Peaks in bytes and seconds by stage."""
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        write_photos(data, megapixels)
        with MemoryWatch(gpu=False) as watch:
            pass
        started = time.monotonic()
        outputs = follow(small_run(name, settings), RunEnvironment(store=Path(temporary) / "store", data=data), last)
        stages = {stage: {"peak": output.peak_host_bytes, "seconds": output.seconds} for stage, output in outputs.items()}
        before = watch.peak.host_bytes
    return {"megapixels": megapixels, "preset": name, "before": before, "seconds": time.monotonic() - started, "stages": stages}


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])))
