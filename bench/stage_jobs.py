"""The stages cams, refine and dynamic on photos of a folder, with a CLIP of random weights; no cache, Prefect or open_clip."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
import torch.nn.functional as F

import tasks.inputs.models
import tasks.stages.dynamic
from bench.device import classes_of
from bench.plain_vit import random_clip
from excel_core.background_pool import BackgroundPool
from excel_core.config import RunSpec
from excel_core.config.presets import preset, with_edits
from excel_core.datasets.images import read_header
from excel_core.models.segmenter import Segmenter
from excel_core.stores import write_knowledge, write_manifest
from excel_core.text.class_sets import class_set
from excel_core.text.knowledge import Knowledge, KnowledgeBase
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, Part, RunEnvironment, Shard
from tasks.inputs.photo_pixels import photo_batches
from tasks.pipeline import STAGES
from tasks.stages.cams import join_cam_shards

__all__ = ["StageJobs"]

BACKGROUND = 25


class StageJobs:
    """Jobs on `count` images, which are the photos of `paths` again and again under other names."""

    def __init__(self, folder: Path, paths: list[Path], count: int, device: torch.device, tiny: bool) -> None:
        self.folder, self.device, self.count, self.tiny = folder, device, count, tiny
        self.data = folder / "data"
        self.split = preset("voc").dataset.cam_splits[0]
        self.clip = random_clip(blocks=6, width=64, joint=32) if tiny else random_clip()
        self.clip.model.to(device)
        self.inputs = {"dataset": self._dataset(paths), "knowledge": self._knowledge()}
        self.cams: dict[str, StageOutput] = {}
        self.number = 0
        self.waits = {"photos": 0.0, "writers": 0.0}  # seconds

    def case(self, what: str, stage: str, edits: dict[str, Any], count: int | None = None) -> dict[str, Any]:
        """Run the stage's shard, of `count` images or all, once to warm up and once for its time; and how much of it the thread
        that drives the GPU waited for photos, and for the threads that write."""
        count = min(count or self.count, self.count)
        run = with_edits(preset("voc"), edits)
        if stage == "refine":
            self._cams_of(run)
        cuda = self.device.type == "cuda"
        self._run(stage, run, min(64, count))
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        self.waits = {"photos": 0.0, "writers": 0.0}
        self._run(stage, run, count)
        seconds = time.perf_counter() - started
        peak = torch.cuda.max_memory_allocated() if cuda else 0
        return {
            "what": f"stage {what}",
            "ours": count / seconds,
            "before": None,
            "unit": "images/s",
            "peak_mib": round(peak / 2**20),
            "waited": {name: wait / seconds for name, wait in self.waits.items()},
        }

    def _run(self, stage: str, run: RunSpec, count: int) -> Path:
        """A shard of the first `count` images → its folder."""
        self.number += 1
        target = self.folder / f"{stage}-{self.number}"
        target.mkdir()
        shard = Shard(self.split, 0, 1, self.split)
        run = with_edits(run, {"dataset": {"max_images": None}})
        job = Job(
            STAGES[stage], run, RunEnvironment(store=self.folder, data=self.data, device=str(self.device)), dict(self.inputs)
        )
        part = Part("all", count, {}, shard=shard)
        segmenter = Segmenter(len(self.clip.blocks), self.clip.width, 20, run.train.segmenter).to(self.device).eval()
        with ExitStack() as stack:
            stack.enter_context(patch.object(tasks.inputs.models, "cached_clip", lambda *_: self.clip))
            stack.enter_context(patch.object(tasks.stages.dynamic, "load_trained", lambda *_: segmenter))
            module = {"cams": "tasks.stages.cams", "refine": "tasks.stages.refine", "dynamic": "tasks.stages.dynamic"}[stage]
            every = tasks.inputs.images.cam_images
            stack.enter_context(patch(f"{module}.cam_images", lambda job, split: every(job, split)[:count]))
            stack.enter_context(patch(f"{module}.photo_batches", self._timed_photos))
            stack.enter_context(patch.object(BackgroundPool, "_wait", self._timed_wait))
            STAGES[stage].work.build_part(job, part, target)  # type: ignore[union-attr]
        if stage != "cams":
            shutil.rmtree(target)
        return target

    def _timed_photos(self, *arguments: Any) -> Iterator[Any]:
        reading = photo_batches(*arguments)
        while True:
            started = time.perf_counter()
            item = next(reading, None)
            self.waits["photos"] += time.perf_counter() - started
            if item is None:
                return
            yield item

    @property
    def _timed_wait(self) -> Callable[[BackgroundPool, int], None]:
        wait = BackgroundPool._wait

        def timed(pool: BackgroundPool, max_unfinished: int) -> None:
            started = time.perf_counter()
            wait(pool, max_unfinished)
            self.waits["writers"] += time.perf_counter() - started

        return timed

    def _cams_of(self, run: RunSpec) -> None:
        """CAMs of all images as input of `refine`."""
        key = f"{run.cams.precision} {run.shards.keep_attention}"
        if key not in self.cams:
            part = self._run("cams", run, self.count)
            joined = self.folder / f"joined-{len(self.cams)}"
            joined.mkdir()
            job = Job(STAGES["cams"], run, RunEnvironment(store=self.folder), {})
            join_cam_shards(job, {"all": _output("cams", part)}, joined)
            self.cams[key] = _output("cams", joined)
        self.inputs["cams"] = self.cams[key]

    def _dataset(self, paths: list[Path]) -> StageOutput:
        target = self.folder / "dataset"
        target.mkdir()
        self.data.mkdir()
        for path in paths:
            shutil.copy(path, self.data / path.name)
        headers = {path: read_header(path) for path in paths}
        names = class_set(preset("voc"), None).class_names
        rows = []
        for number, classes in enumerate(classes_of(self.count)):
            path = paths[number % len(paths)]
            header = headers[path]
            labels = [names[c] for c in classes]
            rows.append((f"{number:05d}", self.split, path.name, header.height, header.width, labels, "", "0" * 64))
        table = pd.DataFrame(rows, columns=["id", "split", "image", "height", "width", "labels", "error", "digest"])
        write_manifest(target / "manifest.parquet", table.astype({"height": "int32", "width": "int32"}))
        return _output("dataset", target)

    def _knowledge(self) -> StageOutput:
        target = self.folder / "knowledge"
        target.mkdir()
        width = self.clip.joint_width
        names = class_set(preset("voc"), None).class_names

        def rows(count: int, seed: int) -> torch.Tensor:
            return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)

        knowledge = Knowledge(rows(20 + BACKGROUND, 1), rows(20, 2), rows(4, 3), rows(20, 4))
        background = tuple(f"background {i}" for i in range(BACKGROUND))
        write_knowledge(target / "knowledge.zarr", KnowledgeBase(knowledge, tuple(names), background, tuple(names)))
        return _output("knowledge", target)


def _output(stage: str, folder: Path) -> StageOutput:
    return StageOutput(stage=stage, key="", content=folder.name, folder=folder, result={}, seconds=0, bytes=0)
