"""The whole chain on a device over real photos, stage by stage, without Prefect: images a second through the store.

    python -m bench.gpu_chain --photos DIR [--images 500] [--iterations 200] [--device cuda] [--last predict] [--set NAME=VALUE]

DIR is in VOC's layout, with labels.csv. Its photos are copied under as many names as are asked for.
The CLIP is a ViT-B/16 of seeded random weights in a file, or `--clip`. Descriptions are the bundled ones.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flows  # noqa: F401  before torch

import torch  # isort: skip

from excel_core.config.presets import preset, with_settings
from tasks.engine.executor import build_stage
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, RunEnvironment
from tasks.pipeline import pipeline

__all__ = ["measured_chain"]

SHARP = 1.4  # standard deviation of what queries and keys are made of: as sharp as if trained
TRAIN, VAL = "train", "val"


def random_weights(file: Path) -> str:
    """Write a ViT-B/16 of seeded random weights → the name of this CLIP."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if name.startswith("visual.") and name.endswith("in_proj_weight"):
            width = value.shape[1]
            value[: 2 * width].normal_(std=SHARP * width**-0.5)
    save_file(state, file)
    return f"ViT-B-16:{file}"


def lay_out(photos: Path, data: Path, images: int, val_images: int) -> None:
    """A data folder in VOC's layout whose train and val splits have so many images, the folder's photos under several names."""
    lines = (photos / "labels.csv").read_text(encoding="utf-8").splitlines()
    header, named = lines[0], [line.partition(",") for line in lines[1:]]
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (data / folder).mkdir(parents=True)
    rows = []
    for split, count in ((TRAIN, images), (VAL, val_images)):
        ids = []
        for i in range(count):
            name, _, labels = named[i % len(named)]
            image = f"{split}_{i:06}"
            for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
                shutil.copyfile(photos / folder / f"{name}{suffix}", data / folder / f"{image}{suffix}")
            rows.append(f"{image},{labels}")
            ids.append(image)
        (data / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(
            "".join(f"{image}\n" for image in ids), encoding="utf-8"
        )
    (data / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def chain_rows(data: Path, store: Path, device: str, clip: str, last: str, settings: Sequence[str]) -> list[dict[str, Any]]:
    """Build every stage up to `last` → a row each: images, seconds, rate, peak MiB of host and device."""
    splits = [f"dataset.train_split={TRAIN}", f"dataset.seed_splits=[{TRAIN}]", f"dataset.val_splits=[{VAL}]"]
    run = with_settings(preset("voc"), [f"clip.model={clip}", *splits, "train.crop_rule=random", *settings])
    rows: list[dict[str, Any]] = []

    def build(job: Job) -> StageOutput:
        started = time.perf_counter()
        output = build_stage(job)
        items = run.train.iterations if job.stage.name == "train" else _images(output)
        seconds = time.perf_counter() - started
        row = {"what": f"stage {job.stage.name}", "items": items, "seconds": round(seconds, 2)}
        rate = {"ours": round(items / seconds, 1), "unit": "it/s" if job.stage.name == "train" else "images/s"} if items else {}
        peaks = {"host_mib": output.peak_host_bytes, "peak_mib": output.peak_gpu_bytes}
        rows.append(row | rate | {name: value and round(value / 2**20) for name, value in peaks.items()})
        return output

    pipeline(run, RunEnvironment(store=store, data=data, device=device), last).follow(build)
    return rows


def _images(output: StageOutput) -> int | None:
    images = output.result.get("images")
    return sum(images.values()) if isinstance(images, dict) else images


def measured_chain(
    photos: Path,
    device: str,
    images: int = 500,
    val_images: int = 200,
    iterations: int = 300,
    clip: str | None = None,
    last: str = "evaluate",
    settings: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Lay out photos, and build the chain over them in a temporary store. Training spends a third on each kind of target."""
    schedule = [f"train.iterations={iterations}", f"train.dynamic_from={iterations // 3}"]
    schedule.append(f"train.own_argmax_from={2 * iterations // 3}")
    with tempfile.TemporaryDirectory() as folder:
        lay_out(photos, Path(folder) / "data", images, val_images)
        clip = clip or random_weights(Path(folder) / "random.safetensors")
        yield from chain_rows(Path(folder) / "data", Path(folder) / "store", device, clip, last, [*schedule, *settings])


def main() -> None:
    """Print a line of JSON a stage, and write them to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--val-images", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clip", help="another CLIP by name")
    parser.add_argument("--last", default="evaluate")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = list(
        measured_chain(
            arguments.photos,
            arguments.device,
            arguments.images,
            arguments.val_images,
            arguments.iterations,
            arguments.clip,
            arguments.last,
            arguments.set,
        )
    )
    print("\n".join(map(json.dumps, rows)))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
