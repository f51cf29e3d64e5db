"""Time, memory and disk of the training-free chain against the number of images: lines that are to be straight, and flat.

    python -m bench.scale [--photos DIR] [--images 100,1000,10000] [--json FILE]

Real photos at a quarter of their sides, each given as many ids as it takes; the tiny CLIP at 64 x 64. What grows with the
number of images is the same at any size. Each number of images is a process of its own, with a store of its own. Bytes on
disk are those of whole photos and 20 x 20 patches, as ViT-B/16 has them at 320 x 320, of FULL_SIZE_IMAGES images.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import flows  # noqa: F401  before torch

from PIL import Image  # isort: skip

from bench.scene import PHOTOS
from excel_core.config.presets import preset, with_settings
from tasks.engine.executor import build_stage
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, RunEnvironment
from tasks.pipeline import pipeline
from tasks.stages.cams import CamsResult
from tasks.stages.refine import LabelsResult

SETTINGS = ["clip.model=excel-tiny", "dataset.train_split=train", "dataset.val_splits=[]"]
SIDE, SHRINK = 64, 4  # pixels of the network input; by what the photos' sides are divided
FULL_SIZE_IMAGES, FULL_SIZE_SIDE = 40, 160


def lay_out(photos: Path, folder: Path, images: int, shrink: int) -> None:
    """A data folder in VOC layout with that many images, its photos linked under several names."""
    header, *lines = (photos / "labels.csv").read_text(encoding="utf-8").splitlines()
    names = [line.partition(",") for line in lines]
    shrunk, data = folder / "shrunk", folder / "data"
    for new_folder in (shrunk, data / "JPEGImages", data / "ImageSets" / "Segmentation"):
        new_folder.mkdir(parents=True)
    for name, _, _ in names:
        with Image.open(photos / "JPEGImages" / f"{name}.jpg") as image:
            image.resize((image.width // shrink, image.height // shrink)).save(shrunk / f"{name}.jpg", quality=95)
    rows = []
    for i in range(images):
        name, _, labels = names[i % len(names)]
        (data / "JPEGImages" / f"{i:06}.jpg").hardlink_to(shrunk / f"{name}.jpg")
        rows.append(f"{i:06},{labels}")
    (data / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    (data / "ImageSets" / "Segmentation" / "train.txt").write_text(
        "".join(f"{row.partition(',')[0]}\n" for row in rows), encoding="utf-8"
    )


def run_chain(folder: Path, side: int) -> dict[str, Any]:
    """Seconds of each stage up to `refine`, the process' peak memory over all of them, and bytes on disk of what is kept."""
    run = with_settings(preset("voc"), [*SETTINGS, f"cams.image_size={side}"])
    environment = RunEnvironment(store=folder / "store", data=folder / "data")
    seconds: dict[str, float] = {}

    def build(job: Job) -> StageOutput:
        started = time.perf_counter()
        output = build_stage(job)
        seconds[job.stage.name] = time.perf_counter() - started
        return output

    outputs = pipeline(run, environment, "refine").follow(build)
    peak = max(output.peak_host_bytes or 0 for output in outputs.values())
    started = time.perf_counter()
    pipeline(run, environment, "refine").follow(build_stage)
    cams, labels = outputs["cams"].result_as(CamsResult), outputs["refine"].result_as(LabelsResult)
    return {
        "seconds": seconds,
        "found_again_seconds": time.perf_counter() - started,
        "peak_bytes": peak,
        "disk_bytes_per_image": {
            "cams": cams.bytes_per_image,
            "attention": cams.attention_bytes_per_image,
            "refine": outputs["refine"].bytes / labels.images,
        },
    }


def measured(photos: Path, images: int, side: int = SIDE, shrink: int = SHRINK) -> dict[str, Any]:
    """The chain over that many images in a fresh process."""
    folder = Path(tempfile.mkdtemp(prefix="excel-scale-"))
    try:
        lay_out(photos, folder, images, shrink)
        command = [sys.executable, "-m", "bench.scale", "--chain", str(folder), "--side", str(side)]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8")  # noqa: S603  this very module
        return {"images": images, **json.loads(ran.stdout.splitlines()[-1])}
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--images", default="100,1000,10000")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, default=SIDE, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.chain:
        print(json.dumps(run_chain(arguments.chain, arguments.side)))
        return
    results = []
    for images in map(int, arguments.images.split(",")):
        results.append(measured(arguments.photos, images))
        print(json.dumps(results[-1]), flush=True)
    disk = measured(arguments.photos, FULL_SIZE_IMAGES, FULL_SIZE_SIDE, shrink=1)["disk_bytes_per_image"]
    result = {"format": "excel-scale/1", "runs": results, "disk_bytes_per_image": disk}
    print(disk)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
