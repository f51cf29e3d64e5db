"""The chain whose runs are killed: every stage up to the report, tiny, without Prefect.

A run says in the layer's log where it is. A *place* is a stretch of a run: "begin", then for each step "prepare STEP",
"work STEP", "complete STEP" and "record STEP", and "end". STEP is KIND/KEY, as the store names its folders. What stands between
two places of the log are the changes of that stretch, and changes are counted from its beginning.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import tasks.engine.executor as executor
from excel_core.config.presets import preset, with_settings
from excel_core.training import loop
from tasks.engine.executor import Step, build_stage, complete_output, find_or_build
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, RunEnvironment, Whole
from tasks.history.run_record import start_record
from tasks.pipeline import pipeline
from tests.pipeline_runs import follow

__all__ = ["EVERY", "ITERATIONS", "RUN", "run_chain", "warm_up"]

ITERATIONS, EVERY = 6, 2
RUN = with_settings(
    preset("demo"),
    [
        "dataset.scene_size=64",
        "dataset.train_scenes=3",
        "dataset.val_scenes=2",
        "dataset.val_splits=[held_out_1]",
        "describe.n=2",
        "knowledge.attributes=8",
        "knowledge.n_init=1",
        "cams.image_size=64",
        "refine.par.dilations=[1, 2]",
        "refine.par.iterations=2",
        "refine.crf.engine=pydensecrf",  # the other one is compiled for each number of labels
        "refine.crf.iterations=1",
        f"train.iterations={ITERATIONS}",
        "train.batch_size=1",
        "train.crop=64",
        "train.dynamic_from=2",
        "train.own_argmax_from=4",
        "train.segmenter.width=8",
        f"train.checkpoint_every={EVERY}",
        "train.keep_every=3",
        "predict.image_size=64",
        "predict.scales=[1.0]",
        "evaluate.ablation=false",
        "shards.images=2",
        "report.gallery_images=1",
    ],
)
Place = Callable[[str], None]


def run_chain(store: Path, last: str, place: Place) -> None:
    """Run the chain up to stage `last` in `store`; `place` is called where the run comes to another place."""
    _name_places(place)
    environment = RunEnvironment(store=store)
    store.mkdir(parents=True, exist_ok=True)
    place("begin")
    record = start_record("excel", RUN, environment)

    def build_step(step: Step) -> StageOutput:
        place(f"prepare {_name(step)}")
        output = find_or_build(step)
        place(f"left {_name(step)}")
        return output

    def build(job: Job) -> StageOutput:
        was_complete = complete_output(Step(job)) is not None
        output = build_stage(job, build_step)
        place(f"record {_name(Step(job))}")
        record.use(output, cached=was_complete)
        return output

    outputs = follow(RUN, environment, last, build)
    place("end")
    record.note_own(outputs)
    record.end("complete")


def warm_up(first_run: Callable[[], object]) -> None:
    """What costs seconds in a fresh process, done once for all that are forked from it: imports, compiled loops, the CLIP, the
    digests of code. No thread is left behind, and no lock. `first_run` runs the chain in a child, to see what it imports."""
    import excel_core.cams.par as par
    from tasks.inputs.models import cached_clip

    par.pixel_adaptive_refinement(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8), RUN.refine.par)
    par._thread_pool.cache_clear()
    cached_clip(RUN.clip.model, "cpu")
    nowhere = RunEnvironment(store=Path("nowhere"))
    for node in pipeline(RUN, nowhere).nodes.values():
        work = node.stage.work
        for function in (work.build,) if isinstance(work, Whole) else (work.build_part, work.join):
            Step(Job(node.stage, RUN, nowhere, {}))._code(function)
    for name in _imported_by(first_run):
        with suppress(ImportError):  # what an extension makes for itself
            importlib.import_module(name)


def _imported_by(run: Callable[[], object]) -> list[str]:
    """The modules that a child loads which calls `run`."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        loaded = set(sys.modules)
        try:
            run()
            os.write(writer, json.dumps(sorted(set(sys.modules) - loaded)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        names = answer.read()
    os.wait()
    return list(json.loads(names or "[]"))


def _name(step: Step) -> str:
    return f"{step.kind}/{step.key}"


def _name_places(place: Place) -> None:
    """Let the engine say when a step's work begins and ends, and training each iteration."""
    build, train = executor._build_guarded, loop.training_step

    def named_build(step: Step) -> Any:
        place(f"work {_name(step)}")
        result = build(step)
        place(f"complete {_name(step)}")
        return result

    def named_step(cam_model: Any, segmenter: Any, optimiser: Any, batch: Any, iteration: int, *rest: Any) -> Any:
        place(f"iteration {iteration}")
        return train(cam_model, segmenter, optimiser, batch, iteration, *rest)

    executor._build_guarded, loop.training_step = named_build, named_step
