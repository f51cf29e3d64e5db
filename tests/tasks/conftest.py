"""One small run of the whole chain, without Prefect, shared by the tests that look at its outputs."""

import pytest

from excel_core.config.presets import preset, with_settings
from tasks.engine.stage import RunEnvironment
from tests.conftest import SMALL_DEMO
from tests.pipeline_runs import follow


@pytest.fixture(scope="session")
def small_run():
    """The demo in miniature: 12 training and 3 x 4 held-out scenes, 4 iterations."""
    return with_settings(preset("demo"), SMALL_DEMO)


@pytest.fixture(scope="session")
def chain(small_run, tmp_path_factory):
    """(outputs by stage, environment) of `small_run`."""
    environment = RunEnvironment(store=tmp_path_factory.mktemp("store"))
    return follow(small_run, environment, "report"), environment
