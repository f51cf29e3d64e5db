"""The tables of docs/speed.md from what the benchmarks wrote: python -m bench.tables FOLDER > docs/speed.md"""

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["speed_row"]

COCO = 82_081  # its training images
KEPT, AGAIN = "static chain in two stages, photo to PNG", "static chain in two stages, attention not kept"
CRF = "published on one"  # how the name of its case ends


def speed_row(result: dict[str, Any]) -> str:
    """One case of bench/speed.py as a row of a Markdown table."""
    seconds, (low, high), peak = result["seconds"], result["ratio_range"], result["peak_bytes"]
    (what, found), *_ = result["agreement"].items()
    shown = f"{100 * min(found):.3f} % {what}" if what == "equal labels" else f"{what} {max(found):.0e}"
    memory = " → ".join(f"{peak[side] / 2**20:.0f}" for side in ("published", "ours"))
    times = f"{seconds['published']:.3g} | {seconds['ours']:.3g} | {result['ratio']:.1f} ({low:.1f} to {high:.1f})"
    return f"| {result['name']} | {times} | {memory} | {shown} |"


def _speed(found: dict[str, Any]) -> list[str]:
    return [
        "## Beside the published way",
        "",
        f"ViT-B/16 at 320 × 320 with random weights, {found['photos']} VOC photos in turn, float32, {found['threads']} cores, "
        f"torch {found['torch']}. Seconds an image or a step, medians; the ratio is the median over rounds, with its least and "
        "greatest. Memory is what one call adds at its peak, MiB.",
        "",
        "| what | published, s | excel, s | times faster | memory | results |",
        "|---|---|---|---|---|---|",
        *map(speed_row, found["cases"]),
        "",
    ]


def _scale(found: dict[str, Any]) -> list[str]:
    rows = []
    for run in found["runs"]:
        n, seconds = run["images"], run["seconds"]
        each = " | ".join(f"{1000 * seconds[stage] / n:.1f}" for stage in ("dataset", "cams", "refine"))
        rows.append(f"| {n:,} | {each} | {run['found_again_seconds']:.2f} | {run['peak_bytes'] / 2**20:.0f} |")
    return [
        "## Against the number of images",
        "",
        "The training-free chain over VOC photos at a quarter of their sides with the tiny CLIP: milliseconds an image by "
        "stage, seconds to find everything complete again, and the process' peak memory, MiB.",
        "",
        "| images | dataset | cams | refine | found again, s | peak |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _coco(speed: dict[str, Any], scale: dict[str, Any]) -> list[str]:
    cases = {case["name"]: case["seconds"] for case in speed["cases"]}
    crf = next(seconds for name, seconds in cases.items() if name.endswith(CRF))
    kept, again, published = (
        f"{COCO * (cases[chain][side] + crf[side]) / 3600:.0f}"
        for chain, side in ((KEPT, "ours"), (AGAIN, "ours"), (KEPT, "published"))
    )
    disk = scale["disk_bytes_an_image"]
    return [
        f"COCO's {COCO:,} training images, from the rows above: CAMs, affinity, PAR and CRF would take these "
        f"{speed['threads']} cores {kept} hours with attention kept (`shards.keep_attention`), {again} without, as the preset "
        f"`coco` has it, and the published way {published}. On disk, at VOC's number of classes an image, CAMs "
        f"{COCO * disk['cams'] / 2**30:.2f} GiB ({disk['cams']:,.0f} bytes an image), "
        f"label maps of four steps {COCO * disk['refine'] / 2**30:.1f} GiB ({disk['refine']:,.0f} bytes an image) and, where "
        f"it is kept, attention {COCO * disk['attention'] / 2**30:.0f} GiB ({disk['attention']:,.0f} bytes an image).",
        "",
    ]


def _likely(found: dict[str, Any]) -> list[str]:
    rows = [
        f"| {one['bound']:g} | {one['labels']:.1f} | {one['seconds']:.3g} | {one['ratio']:.1f} | "
        f"{100 * one['equal_labels']:.3f} % | {100 * one['least_equal_labels']:.3f} % |"
        for one in found["bounds"]
    ]
    return [
        "## Labels that have a chance",
        "",
        f"The dense CRF of a segmentation of {found['images']} VOC photos, 21 labels at several scales by a briefly trained "
        f"segmenter, on one core: labels whose probability exceeds a bound somewhere. pydensecrf over all labels takes "
        f"{found['published_seconds']:.3g} s; its labels are what others are compared with.",
        "",
        "| bound | labels | s | times faster | equal labels | least of a photo |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _device(found: dict[str, Any]) -> list[str]:
    cams = [
        f"| {one['batch']} | {one['way']} | {one['cams_images_a_second']:.3g} | {one['refined_images_a_second']:.3g} | "
        f"{one['peak_bytes'] / 2**20:.0f} | {100 * one['equal_labels']:.2f} % |"
        for one in found["cams"]
    ]
    steps = [
        f"| {one['batch']} | {one['phase']} | {one['iterations_a_second']:.3g} | {one['peak_bytes'] / 2**20:.0f} |"
        for one in found["training"]
    ]
    return [
        f"## On {found['device']}, by precision and batch",
        "",
        f"`python -m bench.gpu`: ViT-B/16 at {found['side']} × {found['side']} with random weights on random pictures. Images "
        "a second of tower, SVC and CAMs, and of affinity and PAR; the share of pixels labelled as in float32; peak memory of "
        "a GPU, MiB.",
        "",
        "| batch | way | CAMs | refined | memory | equal labels |",
        "|---|---|---|---|---|---|",
        *cams,
        "",
        "| batch | training | iterations a second | memory |",
        "|---|---|---|---|",
        *steps,
        "",
    ]


def _overhead(found: dict[str, Any]) -> list[str]:
    ways = found["ways"]
    rows = [f"| {way} | {one['milliseconds_a_part']:.1f} | {one['added']:.1f} |" for way, one in ways.items()]
    return [
        "## What orchestration adds to a shard",
        "",
        f"{found['parts']} shards that do next to nothing, milliseconds each.",
        "",
        "| runner | a shard | added |",
        "|---|---|---|",
        *rows,
        "",
    ]


def main() -> None:
    folder = Path(sys.argv[1])
    names = ("speed", "scale", "likely", "device", "overhead")
    speed, scale, likely, device, overhead = (json.loads((folder / f"{name}.json").read_text()) for name in names)
    lines = ["# Speed", "", "Written by `make bench` from `docs/bench/*.json`.", ""]
    lines += _speed(speed) + _scale(scale) + _coco(speed, scale) + _likely(likely) + _device(device) + _overhead(overhead)
    print("\n".join(lines).rstrip())


if __name__ == "__main__":
    main()
