"""The tables of docs/speed.md from what the benchmarks wrote: python -m bench.tables FOLDER > docs/speed.md"""

import json
import sys
from pathlib import Path
from typing import Any

from bench.markdown import wrapped

__all__ = ["speed_page", "speed_row"]

COCO_IMAGES = 82_081  # of its training split
WITH_ATTENTION = "static chain in two stages, photo to PNG"  # names of cases in bench/speed.py
WITHOUT_ATTENTION = "static chain in two stages, attention not kept"
CRF_SUFFIX = "published on one"
GPU_PARTS = {
    "par": "Refinement, and the stages that make and refine CAMs",
    "crf": "The dense CRF",
    "train": "Training, batch 4",
    "label": "A training-free label from photo to PNG",
    "chain": "Every stage of preset `voc` through the store",
}
LABEL_STAGES = ("stage cams fp16, attention kept", "stage refine without CRF, PAR fp32, attention kept")
GPU_WORDS = (
    "ViT-B/16 at 320 × 320 with seeded random weights, VOC photos at native size. `published` is the published way "
    "(`bench/published.py`) on the same card in the same process, `before` this program without Triton and CUDA graphs (of the "
    "CRF: on all CPU cores); equal labels are the share of pixels labelled as by the CPU, or in float32."
)
# Work of VOC's published schedule: words, images or iterations, and the row of bench.gpu whose rate it goes at.
VOC_WORK = (
    ("descriptions, text encoding, knowledge base", 0, "stage knowledge"),
    ("CAMs of train_aug", 10_582, "stage cams"),
    ("affinity and PAR of train_aug, CRF of its labels", 10_582, "stage refine"),
    ("training before LVC", 14_000, "loop, before LVC, bf16"),
    ("training with LVC", 10_000, "loop, with LVC, bf16"),
    ("training on own argmax", 6_000, "loop, own argmax, bf16"),
    ("LVC seeds of train, refined", 1_464, "stage dynamic"),
    ("val at four scales with flips, CRF", 1_449, "stage predict"),
)


def speed_row(result: dict[str, Any]) -> str:
    """One case of bench/speed.py as a row of a Markdown table."""
    seconds, (low, high), peak = result["seconds"], result["ratio_range"], result["peak_bytes"]
    (measure, values), *_ = result["agreement"].items()
    agreement = f"{100 * min(values):.3f} % {measure}" if measure == "equal labels" else f"{measure} {max(values):.0e}"
    memory = " → ".join(f"{peak[side] / 2**20:.0f}" for side in ("published", "ours"))
    times = f"{seconds['published']:.3g} | {seconds['ours']:.3g} | {result['ratio']:.1f} ({low:.1f} to {high:.1f})"
    return f"| {result['name']} | {times} | {memory} | {agreement} |"


def _speed(result: dict[str, Any]) -> list[str]:
    return [
        "## Beside the published way",
        "",
        f"ViT-B/16 at 320 × 320 with random weights, {result['photos']} VOC photos in turn, float32, "
        f"{result['threads']} cores, torch {result['torch']}. Seconds per image or step, medians; the ratio is the median over "
        "rounds, with its least and greatest. Memory is what one call adds at its peak, MiB.",
        "",
        "| what | published, s | excel, s | times faster | memory | results |",
        "|---|---|---|---|---|---|",
        *map(speed_row, result["cases"]),
        "",
    ]


def _scale(result: dict[str, Any]) -> list[str]:
    rows = []
    for run in result["runs"]:
        n, seconds = run["images"], run["seconds"]
        each = " | ".join(f"{1000 * seconds[stage] / n:.1f}" for stage in ("dataset", "cams", "refine"))
        rows.append(f"| {n:,} | {each} | {run['found_again_seconds']:.2f} | {run['peak_bytes'] / 2**20:.0f} |")
    return [
        "## Against the number of images",
        "",
        "The training-free chain over VOC photos at a quarter of their sides with the tiny CLIP: milliseconds per image by "
        "stage, seconds to find everything complete again, and the process' peak memory, MiB.",
        "",
        "| images | dataset | cams | refine | found again, s | peak |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _coco(speed: dict[str, Any], scale: dict[str, Any]) -> list[str]:
    cases = {case["name"]: case["seconds"] for case in speed["cases"]}
    crf = next(seconds for name, seconds in cases.items() if name.endswith(CRF_SUFFIX))
    with_attention, without_attention, published = (
        f"{COCO_IMAGES * (cases[chain][side] + crf[side]) / 3600:.0f}"
        for chain, side in ((WITH_ATTENTION, "ours"), (WITHOUT_ATTENTION, "ours"), (WITH_ATTENTION, "published"))
    )
    disk = scale["disk_bytes_per_image"]
    return [
        f"COCO's {COCO_IMAGES:,} training images, from the rows above: CAMs, affinity, PAR and CRF would take these "
        f"{speed['threads']} cores {with_attention} hours with attention kept (`shards.keep_attention`), {without_attention} "
        f"without, as the preset `coco` has it, and the published way {published}. On disk, at VOC's number of classes per "
        f"image, CAMs {COCO_IMAGES * disk['cams'] / 2**30:.2f} GiB ({disk['cams']:,.0f} bytes per image), label maps of four "
        f"steps {COCO_IMAGES * disk['refine'] / 2**30:.1f} GiB ({disk['refine']:,.0f} bytes per image) and, where it is kept, "
        f"attention {COCO_IMAGES * disk['attention'] / 2**30:.0f} GiB ({disk['attention']:,.0f} bytes per image).",
        "",
    ]


def _active_labels(result: dict[str, Any]) -> list[str]:
    rows = [
        f"| {one['bound']:g} | {one['labels']:.1f} | {one['seconds']:.3g} | {one['ratio']:.1f} | "
        f"{100 * one['equal_labels']:.3f} % | {100 * one['least_equal_labels']:.3f} % |"
        for one in result["bounds"]
    ]
    return [
        "## Active labels",
        "",
        f"The dense CRF of a segmentation of {result['images']} VOC photos, 21 labels at several scales by a briefly trained "
        f"segmenter, on one core: labels whose probability exceeds a bound somewhere. pydensecrf over all labels takes "
        f"{result['published_seconds']:.3g} s; its labels are what others are compared with.",
        "",
        "| bound | labels | s | times faster | equal labels | least of a photo |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _device(result: dict[str, Any]) -> list[str]:
    cams = [
        f"| {one['batch']} | {one['way']} | {one['cams_images_per_second']:.3g} | {one['refined_images_per_second']:.3g} | "
        f"{one['peak_bytes'] / 2**20:.0f} | {100 * one['equal_labels']:.2f} % |"
        for one in result["cams"]
    ]
    steps = [
        f"| {one['batch']} | {one['phase']} | {one['iterations_per_second']:.3g} | {one['peak_bytes'] / 2**20:.0f} |"
        for one in result["training"]
    ]
    return [
        f"## On {result['device']}, by precision and batch",
        "",
        f"`python -m bench.device`: ViT-B/16 at {result['side']} × {result['side']} with random weights on random pictures. "
        "Images per second of tower, SVC and CAMs, and of affinity and PAR; the share of pixels labelled as in float32; peak "
        "memory of a GPU, MiB.",
        "",
        "| batch | way | CAMs | refined | memory | equal labels |",
        "|---|---|---|---|---|---|",
        *cams,
        "",
        "| batch | training | iterations per second | memory |",
        "|---|---|---|---|",
        *steps,
        "",
    ]


def _gpu(result: dict[str, Any]) -> list[str]:
    """A table a part of bench.gpu; a part that failed or was left out says so."""
    lines = [
        f"## On one {result['device']}",
        "",
        f"`python -m bench.gpu`, torch {result['torch']}; `bench/GPU.md` says how. " + GPU_WORDS,
        "",
    ]
    for name, title in GPU_PARTS.items():
        part = result["parts"].get(name, {"rows": [], "error": "not measured"})
        lines += [f"### {title}", ""]
        rows = [_with_stages(row, result["parts"]) if name == "label" else row for row in part["rows"]]
        if rows:
            lines += ["| what | published | before | excel | unit | peak MiB | equal labels |", "|---|---|---|---|---|---|---|"]
            lines += [_gpu_row(row) for row in rows]
        if "error" in part:
            lines.append(f"The part ended early: {part['error'].splitlines()[-1]}" if part["rows"] else "Not measured.")
        lines.append("")
    return lines + _voc_from_nothing(result["parts"])


def _with_stages(row: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """The published label's row with what the two stages take for one, after each other."""
    rates = {one["what"]: one["ours"] for one in parts.get("par", {"rows": []})["rows"] if one.get("ours")}
    stages = [rates.get(what) for what in LABEL_STAGES]
    if not all(stages):
        return row
    return row | {"what": f"{row['what']}: {' + '.join(LABEL_STAGES)}", "ours": 1 / sum(1 / rate for rate in stages if rate)}


def _gpu_row(row: dict[str, Any]) -> str:
    def number(name: str) -> str:
        value = row.get(name)
        return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    equal = row.get("equal_labels")
    if not (row.get("ours") or row.get("published")) and "seconds" in row:
        row = row | {"ours": row["seconds"], "unit": "s"}
    cells = [row["what"], number("published"), number("before"), number("ours"), row.get("unit", ""), number("peak_mib")]
    return f"| {' | '.join(cells)} | {'' if equal is None else f'{100 * equal:.3f} %'} |"


def _voc_from_nothing(parts: dict[str, Any]) -> list[str]:
    """VOC's published schedule by the sum of measured rates, with the arithmetic."""
    rates = {row["what"]: row for part in parts.values() for row in part["rows"]}
    rows, minutes = [], 0.0
    for words, count, what in VOC_WORK:
        row = rates.get(what)
        if row is None or not (row.get("ours") or row.get("seconds")):
            return [f"VOC from nothing: not summed, since `{what}` was not measured.", ""]
        seconds = count / row["ours"] if count else row["seconds"]
        minutes += seconds / 60
        rate = f"{count:,} at {row['ours']:,.1f} {row['unit']}" if count else "as measured"
        rows.append(f"| {words} | {rate} | {seconds / 60:.1f} |")
    return [
        "### VOC from nothing, by the sum of these rates",
        "",
        "| what | at which rate | minutes |",
        "|---|---|---|",
        *rows,
        f"| together | | {minutes:.1f} |",
        "",
    ]


def _overhead(result: dict[str, Any]) -> list[str]:
    ways = result["ways"]
    rows = [f"| {way} | {one['milliseconds_per_part']:.1f} | {one['added']:.1f} |" for way, one in ways.items()]
    return [
        "## What orchestration adds to a shard",
        "",
        f"{result['parts']} shards that do next to nothing, milliseconds each.",
        "",
        "| runner | per shard | added |",
        "|---|---|---|",
        *rows,
        "",
    ]


def speed_page(folder: Path) -> str:
    """The page, of the files that `make bench` wrote into the folder."""
    names = ("speed", "scale", "active_labels", "device", "overhead")
    speed, scale, active_labels, device, overhead = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names
    )
    lines = ["# Speed", "", "Written by `make bench` from `docs/bench/*.json`.", ""]
    lines += _speed(speed) + _scale(scale) + _coco(speed, scale)
    lines += _active_labels(active_labels) + _device(device) + _overhead(overhead)
    gpu = folder / "gpu.json"
    lines += _gpu(json.loads(gpu.read_text(encoding="utf-8"))) if gpu.exists() else ["## On a GPU", "", "Not measured."]
    return "\n".join(wrapped(lines)).rstrip() + "\n"


if __name__ == "__main__":
    print(speed_page(Path(sys.argv[1])), end="")
