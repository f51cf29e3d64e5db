"""One Prefect server a session."""

import pytest
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def prefect_server():
    """An ephemeral Prefect server with a database of its own."""
    with prefect_test_harness(server_startup_timeout=120):
        yield
