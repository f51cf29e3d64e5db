"""The benchmark of methods: which runs it compares, and how a method's numbers come from their counts of pixels.

A method's *kinds* of label maps are those that its run scores: `static` seeds, seeds with what training learnt (`lvc`),
`segmentation`. A kind has *steps*: raw, affinity, par, crf of seeds; single_scale, multi_scale, multi_scale_crf of a
segmentation. A *number* is a step's mIoU, the mean over splits and seeds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from excel_core.config import BenchmarkSpec, RunSpec
from excel_core.config.presets import preset, with_edits, with_iterations, with_settings, with_users_edits
from excel_core.config.unused import changed_fields, is_below, unused_settings
from excel_core.evaluation.bootstrap import (
    ResampledScore,
    SeedScores,
    confusions_by_image,
    image_draws,
    paired_difference,
    resample,
    score_over_seeds,
)
from excel_core.evaluation.examples import per_image_miou
from excel_core.evaluation.metrics import mean_iou, present_class_iou
from excel_core.paper.tables import limit_run

__all__ = [
    "Evaluated", "MethodScores", "StepKey", "before_edits", "common_images", "disagreement", "is_seeded", "method_runs",
    "methods_numbers", "parse_result_key", "score_method", "seed_run", "settings_of_method", "unused_by_all",
]  # fmt: skip

StepKey = tuple[str, str]  # kind, step


def method_runs(run: RunSpec) -> dict[str, RunSpec]:
    """The run of each method of `run.benchmark`. `run` is `before_edits` of the first method with a user's changes. A method's
    run is its own `before_edits` with these changes, as far as the method uses them, and with the settings of that method
    alone. A method that trains no segmenter has seeds alone."""
    runs = {}
    for method in run.benchmark.methods:
        own_settings = settings_of_method(run.benchmark.own_settings, method)
        before, after = (before_edits(run.preset, name, run.benchmark) for name in (run.method, method))
        moved = with_users_edits(run, before, after, _unused(run, method))
        moved = with_settings(moved, own_settings)
        kinds = tuple(kind for kind in moved.evaluate.kinds if moved.train.enabled or kind == "static")
        runs[method] = with_edits(moved, {"evaluate": {"ablation": False, "kinds": kinds}})
    return runs


def unused_by_all(run: RunSpec) -> list[str]:
    """Dotted names of what the user changed in `run` that no method of the benchmark uses."""
    changed = changed_fields(run, before_edits(run.preset, run.method, run.benchmark))
    unused = [_unused(run, method) for method in run.benchmark.methods]
    return [name for name in changed if all(is_below(name, groups) for groups in unused)]


def before_edits(name: str, method: str, spec: BenchmarkSpec) -> RunSpec:
    """A method's preset, cut to the benchmark's limit and iterations."""
    run = preset(name, method)
    run = run if spec.limit is None else limit_run(run, spec.limit)
    if spec.iterations is None or not run.train.enabled or run.train.iterations <= spec.iterations:
        return run
    return with_iterations(run, spec.iterations)


def _unused(run: RunSpec, method: str) -> set[str]:
    """Settings and groups that a method, under its own settings, leaves without effect."""
    plain = preset(run.preset, method)
    asked = with_settings(plain, settings_of_method(run.benchmark.own_settings, method))
    return {group for groups in unused_settings(asked, plain).values() for group in groups}


def settings_of_method(own_settings: Sequence[str], method: str) -> list[str]:
    """Those of METHOD.stage.field=value that name this method, without its name; a method's variants share its name."""
    begins = f"{method.partition(':')[0]}."
    return [setting.removeprefix(begins) for setting in own_settings if setting.startswith(begins)]


def is_seeded(run: RunSpec, kind: str) -> bool:
    """Whether another seed of k-means or training gives other label maps of a kind."""
    clusters = run.knowledge.mode == "attributes" and run.knowledge.attributes_file is None
    trains = run.train.from_checkpoint is None
    return {"static": clusters, "lvc": clusters or trains, "segmentation": trains}[kind]


def seed_run(run: RunSpec, seed: int) -> RunSpec | None:
    """A method's run under the seeds that are `seed` more than its own, with the kinds alone that they change; None where these
    are none. Seed 0 is the method's run itself, with every kind."""
    if seed == 0:
        return run
    kinds = tuple(kind for kind in run.evaluate.kinds if is_seeded(run, kind))
    seeds = {"train": {"seed": run.train.seed + seed}, "evaluate": {"kinds": kinds}}
    if run.knowledge.mode == "attributes":  # others keep the knowledge base that they share
        seeds["knowledge"] = {"seed": run.knowledge.seed + seed}
    return with_edits(run, seeds) if kinds else None


def parse_result_key(key: str) -> tuple[str, str, str]:
    """A key of metrics.json → kind, split, step: seeds.lvc.train.par, segmentation.val.multi_scale."""
    family, _, step = key.rpartition(".")
    kind, _, split = family.removeprefix("seeds.").partition(".")
    return kind, split, step


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What evaluation made of a method under one seed: metrics.json's `results`, and pixels by result, image, truth and
    prediction."""

    results: Mapping[str, Any]
    counts: pd.DataFrame

    def images(self, key: str) -> set[str]:
        """Ids of the images that have pixels in a result."""
        return set(self.counts.loc[self.counts["result"] == key, "image"])


@dataclass(frozen=True, eq=False)
class MethodScores:
    """A method's scores by number, and the fields of their protocols. Of its last steps under the first seed: IoU (C,) by class
    and split, and mIoU of single images by split."""

    scores: Mapping[StepKey, SeedScores]
    protocols: Mapping[StepKey, Mapping[str, Any]]
    class_iou: Mapping[str, Mapping[str, NDArray[np.float64]]]
    image_miou: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def last_steps(self) -> dict[str, StepKey]:
        """By kind."""
        return {kind: (kind, step) for kind, step in self.scores}


def common_images(evaluated: Iterable[Evaluated]) -> dict[tuple[str, str], list[str]]:
    """(kind, split) → ids of the images that every result of it has, whatever the method and seed, sorted."""
    sets: dict[tuple[str, str], list[set[str]]] = {}
    for evaluation in evaluated:
        for key in evaluation.results:
            kind, split, _ = parse_result_key(key)
            sets.setdefault((kind, split), []).append(evaluation.images(key))
    return {place: sorted(set.intersection(*image_sets)) for place, image_sets in sets.items()}


def score_method(
    by_seed: Sequence[Evaluated], names: Sequence[str], images: Mapping[tuple[str, str], Sequence[str]], resamples: int
) -> MethodScores:
    """What evaluation made of a method, seed by seed; class names, background first; the images of each kind and split →
    MethodScores. The images of a split are resampled with the same draws, whoever asks."""
    scores: dict[StepKey, dict[str, list[ResampledScore]]] = {}
    protocols: dict[StepKey, list[Mapping[str, Any]]] = {}
    class_iou: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    image_miou: dict[str, dict[str, dict[str, float]]] = {}
    for number, evaluation in enumerate(by_seed):
        last_key = {parse_result_key(key)[:2]: key for key in evaluation.results}
        for key, result in evaluation.results.items():
            kind, split, step = parse_result_key(key)
            ids, is_last = images[kind, split], key == last_key[kind, split]
            if not ids:
                continue
            by_image = confusions_by_image(evaluation.counts[evaluation.counts["result"] == key], ids, len(names))
            total = np.asarray(by_image.sum(axis=0)).reshape(len(names), len(names))
            resampled = mean_iou(resample(by_image, image_draws(len(ids), resamples), len(names)))
            scores.setdefault((kind, step), {}).setdefault(split, []).append(ResampledScore(float(mean_iou(total)), resampled))
            if is_last:
                class_iou.setdefault(kind, {}).setdefault(split, []).append(present_class_iou(total))
            if number == 0:  # of the run's own seed
                protocols.setdefault((kind, step), []).append({**result["protocol"], "images": len(ids)})
            if number == 0 and is_last:
                miou = per_image_miou(by_image, len(names)).tolist()
                image_miou.setdefault(kind, {})[split] = dict(zip(ids, miou, strict=True))
    mean_class_iou = {kind: {split: np.mean(iou, axis=0) for split, iou in of.items()} for kind, of in class_iou.items()}
    joined = {key: _joined(of_splits) for key, of_splits in protocols.items()}
    return MethodScores(scores, joined, mean_class_iou, image_miou)


def _joined(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The protocol of a mean over splits: it names all of them, and counts their images."""
    splits = ", ".join(str(protocol["split"]) for protocol in protocols)
    return {**protocols[0], "split": splits, "images": sum(protocol["images"] for protocol in protocols)}


def methods_numbers(methods: Mapping[str, MethodScores]) -> list[dict[str, Any]]:
    """Every number of every method as plain data: method, kind, step, whether it is the kind's `last`, what `score_over_seeds`
    says, the protocol, and `difference` to the first method.

    A step is compared with the same step of the first method, where that has it; else the last step with its last one. Else
    there is no difference, as for the first method itself. `against` names the method and step."""
    first = next(iter(methods))
    numbers = []
    for method, of_method in methods.items():
        for (kind, step), scores in of_method.scores.items():
            is_last = of_method.last_steps[kind] == (kind, step)
            number: dict[str, Any] = {"method": method, "kind": kind, "step": step, "last": is_last}
            number |= score_over_seeds(scores) | {"protocol": dict(of_method.protocols[kind, step]), "difference": None}
            counterpart = _counterpart(methods[first], (kind, step), is_last)
            if method != first and counterpart is not None:
                paired = paired_difference(methods[first].scores[counterpart], scores)
                number["difference"] = {"against": [first, counterpart[1]]} | paired
            numbers.append(number)
    return numbers


def _counterpart(first: MethodScores, key: StepKey, is_last: bool) -> StepKey | None:
    """The number of the first method that another method's is compared with."""
    if key in first.scores:
        return key
    return first.last_steps.get(key[0]) if is_last else None


def disagreement(methods: Mapping[str, MethodScores], kind: str, shown: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """Images on which the methods' last label maps of a kind differ most in mIoU, the largest spread first: {split, id, spread,
    miou by method}. `shown`: by split, the ids among which they are. Equal spreads are in the order of split and id."""
    having = {method: scores.image_miou[kind] for method, scores in methods.items() if kind in scores.image_miou}
    rows = []
    for split in shown if having else ():
        for image in sorted(set(shown[split])):
            miou = {method: of_split[split][image] for method, of_split in having.items() if image in of_split.get(split, {})}
            if miou:
                rows.append({"split": split, "id": image, "spread": max(miou.values()) - min(miou.values()), "miou": miou})
    return sorted(rows, key=lambda row: -row["spread"])
