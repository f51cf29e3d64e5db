"""One small run of the whole chain, without Prefect, shared by the tests that look at its outputs."""

import pytest

from excel_core.config.presets import preset, with_settings
from tasks.engine.stage import RunEnvironment
from tasks.history.run_record import start_record
from tests.conftest import SMALL_DEMO
from tests.pipeline_runs import follow_and_watch


@pytest.fixture(scope="session")
def small_run():
    """The demo in miniature: 12 training and 3 x 4 held-out scenes, 4 iterations."""
    return with_settings(preset("demo"), SMALL_DEMO)


@pytest.fixture(scope="session")
def watched_chain(small_run, tmp_path_factory):
    """(outputs by stage, environment, inputs that each stage looked at) of `small_run`."""
    environment = RunEnvironment(store=tmp_path_factory.mktemp("store"))
    outputs, read = follow_and_watch(small_run, environment, "report")
    return outputs, environment, read


@pytest.fixture(scope="session")
def chain(watched_chain):
    """(outputs by stage, environment) of `small_run`."""
    return watched_chain[:2]


@pytest.fixture(scope="module")
def record(chain, small_run):
    """A record of that run in its store, as a flow leaves it; gone again with the tests of a file."""
    outputs, environment = chain
    record = start_record("excel", small_run, environment)
    for name, output in outputs.items():
        record.own[name] = output.key
        record.use(output, cached=False)
    record.end("complete")
    yield record
    (environment.store / "records" / f"{record.id}.json").unlink()
