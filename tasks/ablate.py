"""The ablation that `evaluate` adds on request: CAMs of every variant on held-out images, and zero-shot presence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from excel_core.ablation import ThresholdSweep, presence_scores, variant_cams, variants
from excel_core.metrics import mean_average_precision
from excel_core.stores import read_json
from tasks.progress import track
from tasks.stage import Work
from tasks.train import trained_segmenter
from tasks.vision import Record, batches, load_vision

__all__ = ["ablate"]

Truth = Callable[[Record], NDArray[np.uint8]]


def ablate(work: Work, splits: dict[str, list[Record]], truth: Truth) -> dict[str, Any]:
    """Score the variants on each split's records → the `ablation` part of metrics.json."""
    vision = load_vision(work)
    segmenter = trained_segmenter(work, vision)
    rows = variants(work.run.cams)
    templates = _templates(work, vision.clip).to(vision.text)
    texts = {True: vision.text, False: torch.cat([templates, vision.text[vision.classes :]])}
    scores: dict[str, dict[str, tuple[float, float]]] = {row.name: {} for row in rows}
    presence: dict[str, float] = {}
    size = work.run.cams.batch_size
    for split, found in splits.items():
        sweeps = {row.name: ThresholdSweep(vision.classes) for row in rows}
        seen = []
        for batch in track(batches(found, size), f"ablation {split}", -(-len(found) // size)):
            encoded = vision.encode(vision.prepare([row.read() for row in batch]))
            seen.append(presence_scores(vision.clip, encoded.path, templates).cpu().numpy())
            relation = vision.relation(segmenter, encoded)
            for name, cams in variant_cams(vision.clip, encoded.path, texts, vision.classes, rows, relation).items():
                for row, cam in zip(batch, cams.float(), strict=True):
                    sweeps[name].add(cam, row.classes, truth(row))
        presence[split] = mean_average_precision(np.concatenate(seen), _present(found, vision.classes))
        for name, sweep in sweeps.items():
            scores[name][split] = sweep.best()
    return {
        "protocol": {
            "what": "CAMs, not refined",
            "splits": list(splits),
            "labels": "image-level ground truth",
            "refinement": "raw, best single threshold of a variant on a split",
            "images": {split: len(found) for split, found in splits.items()},
        },
        "rows": [
            {
                "name": name,
                "miou": float(np.mean([miou for miou, _ in found.values()])),
                "by_split": {split: miou for split, (miou, _) in found.items()},
                "threshold": {split: threshold for split, (_, threshold) in found.items()},
            }
            for name, found in scores.items()
            if found
        ],
        "presence_map": {"mean": float(np.mean(list(presence.values()))), "by_split": presence} if presence else {},
    }


def _templates(work: Work, clip: Any) -> torch.Tensor:
    """Plain class texts t_c (C, D), not enriched."""
    prompts = read_json(work.input("describe") / "descriptions.json")["prompts"]
    return clip.encode_texts([prompts["template"].format(entry["synonyms"]) for entry in prompts["classes"]])  # type: ignore[no-any-return]


def _present(rows: list[Record], classes: int) -> NDArray[np.bool_]:
    """(images, classes): whether the image has the class by its image-level labels."""
    table = np.zeros((len(rows), classes), dtype=bool)
    for i, row in enumerate(rows):
        table[i, list(row.classes)] = True
    return table
