"""docs/scale.md from what the benchmarks wrote: python -m bench.scale_page docs/bench [--price NAME=USD …] > docs/scale.md

Rates are those of docs/bench/device.json (this machine's CPU) and gpu.json (a card); what is not there is "not measured".
Prices are assumptions, by name: gpu_hour, core_hour, disk_month (GB), s3_month (GB), s3_write (million requests).
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.markdown import wrapped

MILLION = 1_000_000
CARDS = 64
PRICES = {"gpu_hour": 3.0, "core_hour": 0.04, "disk_month": 0.08, "s3_month": 0.023, "s3_write": 5.0}
STAGES = ("cams", "refine", "dynamic", "predict")
MISSING = "not measured"
MEASURES = {
    "plan": "`plan`, nothing computed yet: manifest, shards, keys of `cams`",
    "planned": "`plan`, all CAMs there: keys of `refine` too",
    "worker": "a worker's first shard: the manifest, and which images are its",
    "runs": "`runs`, with one run that was killed over all shards",
    "gc": "`gc`: what can go, half of the parts",
}


def scale_page(folder: Path, prices: dict[str, float]) -> str:
    """The page's text."""
    far = json.loads((folder / "scale_far.json").read_text(encoding="utf-8"))
    rates = {"CPU, 2 cores": cpu_rates(folder), "one card": gpu_rates(folder)}
    return "\n".join(wrapped([*_intro(), *_planning(far), *_costs(folder, rates, prices), *_breaks(far)])) + "\n"


def cpu_rates(folder: Path) -> dict[str, float]:
    """Images a second by stage on this machine's CPU, as far as bench.device measured them."""
    best = max(_read(folder / "device.json").get("cams", []), key=lambda row: row["cams_images_per_second"], default={})
    return {"cams": best["cams_images_per_second"], "refine": best["refined_images_per_second"]} if best else {}


def gpu_rates(folder: Path) -> dict[str, float]:
    """Images a second by stage on one card: the rows `stage NAME` of bench.gpu."""
    rows = [row for row in _rows(_read(folder / "gpu.json")) if row.get("unit") == "images/s"]
    return {name: row["ours"] for name in STAGES for row in rows if row.get("what") == f"stage {name}" and "ours" in row}


def _rows(value: Any) -> Iterator[dict[str, Any]]:
    """Every row of a benchmark's file, wherever it is in it."""
    if isinstance(value, dict):
        if "what" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _rows(inner)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _intro() -> list[str]:
    return [
        "# Millions of photos",
        "",
        "Made by `python -m bench.scale_page docs/bench > docs/scale.md` from `docs/bench/scale_far.json`",
        "(`python -m bench.scale_far`), `scale.json`, `device.json` and, where a card was measured, `gpu.json`.",
        "",
    ]


def _planning(far: dict[str, Any]) -> list[str]:
    runs = far["runs"]
    lines = [
        "## What is decided before anything is computed",
        "",
        "A manifest of made-up photos, no pixels. Seconds are of the process' own work; where other processes had the",
        "machine's cores, the clock went on longer (in brackets). Memory is the peak of the process: one that has imported",
        f"torch and plans nothing has {min(run['runs']['peak_bytes'] for run in runs if 'runs' in run) / 2**30:.2f} GiB.",
        *([far["note"]] if "note" in far else []),
        "",
        "| | " + " | ".join(f"{run['images']:,} photos" for run in runs) + " |",
        "|---|" + "---|" * len(runs),
    ]
    for name, text in MEASURES.items():
        lines.append(f"| {text} | " + " | ".join(_measure(run.get(name)) for run in runs) + " |")
    lines.append("| each further shard of that worker | " + " | ".join(_other_shards(run.get("worker")) for run in runs) + " |")
    lines.append("| shards at `shards.images=256` | " + " | ".join(_shards(run.get("plan")) for run in runs) + " |")
    listings = ", ".join(
        f"{row['images']:,} files {row['cpu_seconds']:.1f} s, {row['peak_bytes'] / 2**30:.2f} GiB" for row in far["listing"]
    )
    return [*lines, "", f"Listing the data folder, which `plan` does too (its names, sizes and times): {listings}.", ""]


def _measure(values: dict[str, Any] | None) -> str:
    if values is None:
        return MISSING
    return f"{_seconds(values['cpu_seconds'])} ({_seconds(values['seconds'])}), {values['peak_bytes'] / 2**30:.2f} GiB"


def _other_shards(values: dict[str, Any] | None) -> str:
    return MISSING if values is None else f"{1000 * values['others']:.1f} ms"


def _shards(values: dict[str, Any] | None) -> str:
    return MISSING if values is None else f"{values['parts']['cams']:,}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 1 else f"{seconds:.1f} s"


def _costs(folder: Path, rates: dict[str, dict[str, float]], prices: dict[str, float]) -> list[str]:
    cores = 2
    lines = [
        "## Time and cost of a million photos",
        "",
        "hours = 1,000,000 / (images a second) / 3,600. On the CPU as many hours of 2 cores; on 64 cards a 64th, by",
        "shards that depend on their images alone, plus what Dask adds (docs/speed.md). USD = hours × price.",
        "",
        "| stage | " + " | ".join(f"{place}: images/s | hours | USD" for place in rates) + f" | {CARDS} cards: hours |",
        "|---|" + "---|" * (3 * len(rates) + 1),
    ]
    for stage in STAGES:
        cells = []
        for place, by_stage in rates.items():
            hourly = prices["gpu_hour"] if place == "one card" else cores * prices["core_hour"]
            cells += _cost(by_stage.get(stage), hourly)
        card = rates["one card"].get(stage)
        cells.append(f"{MILLION / card / 3600 / CARDS:.3f}" if card else MISSING)
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    disk = _read(folder / "scale.json").get("disk_bytes_per_image", {})
    lines += [
        "",
        "Bytes a photo, of real photos at 320 × 320 (`bench.scale`), and what a million keep on a disk or on S3 for a month:",
    ]
    lines += ["", "| | bytes a photo | GB a million | disk, USD a month | S3, USD a month |", "|---|---|---|---|---|"]
    for name, size in disk.items():
        gigabytes = size * MILLION / 1e9
        month = f"{gigabytes * prices['disk_month']:.2f} | {gigabytes * prices['s3_month']:.2f}"
        lines.append(f"| {name} | {size:,.0f} | {gigabytes:,.1f} | {month} |")
    lines += [
        "",
        f"On S3 a label map is an object: USD {prices['s3_write']:.2f} a million to write, once for a part and its whole.",
        "",
        "Prices are assumptions, to be given anew with `--price`: "
        + ", ".join(f"{k} {v:g}" for k, v in prices.items())
        + " USD.",
        "",
    ]
    return lines


def _cost(rate: float | None, hourly: float) -> list[str]:
    if not rate:
        return [MISSING] * 3
    hours = MILLION / rate / 3600
    return [f"{rate:,.1f}", f"{hours:,.1f}", f"{hours * hourly:,.2f}"]


def _breaks(far: dict[str, Any]) -> list[str]:
    markers = far.get("markers", [])
    read = "; ".join(
        f"{row['files']:,} files: {row['bytes'] / 2**20:.0f} MiB, read in {row['cpu_seconds']:.1f} s and "
        f"{(row['peak_bytes'] - row['before_bytes']) / 2**30:.2f} GiB"
        for row in markers
    )
    return [
        "## What breaks first",
        "",
        "1. **Markers of label maps.** The marker of a joined output names every file, and label maps are a file a photo:",
        f"   {read or MISSING}.",
        "   Ten million make gigabytes of JSON that each reader parses as a whole. What would help is a marker that refers to",
        "   those of its parts.",
        "2. **Joining.** Ten million files in a folder, each with a link, an fsync and a digest: minutes to hours on one",
        "   machine, while the workers wait.",
        "3. **Attention on disk**, the most bytes by far (above): `shards.keep_attention=false` leaves it out, and `refine`",
        "   encodes each photo again.",
        "4. **A shard a task.** 65,536 shards of 256 in one Dask scheduler and one Prefect database; `shards.images=4096`",
        "   makes them 4,096.",
        "5. **What workers bring to their disks.** On S3 a worker that refines a shard first brings all of `cams`; and every",
        "   worker reads the whole manifest once.",
        "6. **Evaluation** looks at every scored image for each of its shards. Nobody has ten million masks.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--price", action="append", default=[], metavar="NAME=USD")
    arguments = parser.parse_args()
    given = dict(price.split("=") for price in arguments.price)
    print(scale_page(arguments.folder, PRICES | {name: float(value) for name, value in given.items()}), end="")


if __name__ == "__main__":
    main()
