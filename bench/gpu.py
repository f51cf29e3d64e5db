"""What excel does on a GPU, in one command: parts by name, each of which is measured once and kept.

    python -m bench.gpu --photos DIR --json docs/bench/gpu.json [--parts train,label,chain,crf,par] [--again]

Needs what bench/GPU.md lists, neither Prefect nor data beside a folder of photos in VOC's layout. Parts that the file has
already, of this card, are passed over, unless `--again`. A part that fails is written with its error, and the others go on.

A row: `what`, `unit`, `ours`; and where there is one to compare with, `published` (bench/published.py on the same card in the
same process) or `before` (the path without Triton and CUDA graphs).
"""

import argparse
import json
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import flows  # noqa: F401  before torch

import torch  # isort: skip

__all__ = ["FORMAT", "PARTS"]

FORMAT = "excel-gpu/2"
Rows = Iterator[dict[str, Any]]


def _par(photos: Path, device: torch.device) -> Rows:
    from bench.gpu_par import cases

    return chain.from_iterable(cases(photos, only=group) for group in ("kernels", "packed", "encoder", "stages"))


def _crf(photos: Path, device: torch.device) -> Rows:
    from bench import gpu_crf

    return gpu_crf.cases(gpu_crf.photos(photos, 32))


def _train(photos: Path, device: torch.device) -> Rows:
    from bench.gpu_train import cases

    return cases(photos)


def _label(photos: Path, device: torch.device) -> Rows:
    from bench.gpu_label import published_label_rows

    return published_label_rows(photos, device)


def _chain(photos: Path, device: torch.device) -> Rows:
    from bench.gpu_chain import measured_chain

    return measured_chain(photos, device.type, images=300, val_images=60, iterations=150)


PARTS: dict[str, Callable[[Path, torch.device], Rows]] = {
    "train": _train,
    "label": _label,
    "chain": _chain,
    "crf": _crf,
    "par": _par,
}


def main() -> None:
    """Print a line of JSON a row; write all parts after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--again", action="store_true", help="measure parts that the file has already")
    arguments = parser.parse_args()
    names = arguments.parts.split(",")
    if unknown := set(names) - PARTS.keys():
        parser.error(f"--parts: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU; python -m bench.device measures a CPU")
    device, card = torch.device("cuda"), torch.cuda.get_device_name()
    result: dict[str, Any] = {"format": FORMAT, "device": card, "torch": torch.__version__, "parts": {}}
    if arguments.json.is_file():
        found = json.loads(arguments.json.read_text(encoding="utf-8"))
        if (found.get("format"), found.get("device")) == (FORMAT, card):
            result["parts"] = found["parts"]
    for name in names:
        if name in result["parts"] and "error" not in result["parts"][name] and not arguments.again:
            continue
        started, rows = time.perf_counter(), []
        part: dict[str, Any] = {"rows": rows}
        try:
            for row in PARTS[name](arguments.photos, device):
                rows.append(row)
                print(json.dumps({"part": name, **row}), flush=True)
        except Exception:  # the others are still worth their time on the card
            part["error"] = traceback.format_exc(limit=-3)
            print(part["error"], flush=True)
        part["seconds"] = round(time.perf_counter() - started, 1)
        result["parts"][name] = part
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
