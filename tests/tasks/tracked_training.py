"""A small training of its own, told to a tracker as a flow does it."""

from tasks.engine.executor import Step
from tasks.engine.progress import listening
from tasks.history.run_record import start_record
from tasks.pipeline import pipeline
from tasks.trackers.live import logged_live
from tests.pipeline_runs import complete, follow

LEARNT = ["train.checkpoint_every=1", "train.iterations=6"]  # a training of its own, with checkpoints


def train(run, environment, target, stop_at=None, last="train", at=None):
    """The run up to `last` as a flow does it, its training stopped by Ctrl-C after `stop_at` iterations → record, and what is
    said. `at`: what to do after so many iterations, by their number."""
    record, said = start_record("excel", run, environment), []
    graph = pipeline(run, environment, last)
    before = graph.follow(complete)
    node = graph.nodes[graph.own_ids["train"]]
    record.begin([f"train/{Step(graph.job(node, {graph.own_ids[n]: o for n, o in before.items() if o})).key}"])

    def stop(stage, done, total):
        if stage == "train" and done == stop_at:
            raise KeyboardInterrupt
        if stage == "train" and done in (at or {}):
            at[done]()

    try:
        with logged_live(target, record, said.append), listening(stop):
            record.note_own(follow(run, environment, last))
    except KeyboardInterrupt:
        record.end("stopped")
    else:
        record.end("complete")
    return record, said
