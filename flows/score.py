"""The flow `score`: training-free label maps against the masks, and what an edit of prompts did to them.

The stage's output is the score alone, and is cached as any other. The comparison with an earlier run is no part of it: it is
made anew by every run of this flow, from two scores, and written to STORE/score/RUN.json.
"""

from dataclasses import replace
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from artifacts.prefect_artifacts.publish import publish_score
from excel_core.errors import DataError
from flows.chain_run import ChainRun, chain_run
from flows.parameters import score_flow
from flows.request import ScoreRequest
from flows.retention import kept_pictures
from tasks.history.earlier_run import MADE, EarlierRun, earlier_run, named_run
from tasks.history.score_change import ScoredRun, change_file, write_change, write_no_change

__all__ = ["score"]


@score_flow("score")
def score(request: ScoreRequest) -> str:
    """Score the training-free label maps, and compare them with an earlier run's. Returns the comparison's path."""
    run, environment = request.resolve()
    pictures = kept_pictures()
    against = None if request.against is None else named_run(environment.store, request.against).id  # `latest` is not this run
    with chain_run(run, environment, "score", request.runner) as chain:
        scored = chain.until_last()
        after = ScoredRun(chain.id, {stage: chain.outputs[stage] for stage in MADE}, chain.job("score"), scored)
        path = change_file(environment.store, chain.id)
        earlier = earlier_run(environment.store, chain.id, run, after.outputs, against)
        if isinstance(earlier, EarlierRun):
            _compare_with(chain, earlier, after, path)
        else:
            write_no_change(after, earlier, path)
    _publish(str(scored.folder), str(path), pictures)
    return str(path)


def _compare_with(chain: ChainRun, earlier: EarlierRun, after: ScoredRun, path: Path) -> None:
    """Compare with an earlier run, unless its label maps do not fit the masks any more."""
    try:
        before = _scored_before(chain, earlier, after)
    except DataError as error:  # a photo was replaced by one of another size, and its mask
        write_no_change(after, earlier.passed_over | {earlier.id: str(error)}, path)
    else:
        _compare(earlier, before, after, path)


def _scored_before(chain: ChainRun, earlier: EarlierRun, after: ScoredRun) -> ScoredRun:
    """An earlier run's label maps against the masks that this run's are scored against, so that both have the same truth."""
    inputs = {name: earlier.outputs.get(name, output) for name, output in after.job.inputs.items()}
    job = replace(after.job, run=earlier.run, inputs=inputs, variant="run before")
    return ScoredRun(earlier.id, earlier.outputs, job, chain.build(job))


@task(name="compare", cache_policy=NO_CACHE, persist_result=False)
def _compare(earlier: EarlierRun, before: ScoredRun, after: ScoredRun, path: Path) -> None:
    write_change(earlier, before, after, path)


# Never cached, so that every run shows its tables and pictures, or where the same ones are.
@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def _publish(folder: str, path: str, keep_pictures: int) -> list[str]:
    return publish_score(Path(folder), Path(path), keep_pictures)
