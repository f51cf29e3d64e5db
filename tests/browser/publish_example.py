"""Publishes the artifacts of tests/report_view.py inside a flow run, whose id it prints; run as
`python -m tests.browser.publish_example`."""

from dataclasses import replace
from pathlib import Path

from prefect import flow, runtime

from artifacts.prefect_artifacts.publish import publish
from tests.report_view import example_view


@flow(name="publish example")
def publish_example() -> str:
    """The stages claim to be built by this very run, so that their links lead somewhere."""
    view = example_view()
    made = {"made_by": runtime.flow_run.name, "made_by_id": str(runtime.flow_run.id)}
    publish(replace(view, stages=tuple(replace(row, **made) for row in view.stages)), Path("index.html"))
    return str(runtime.flow_run.id)


if __name__ == "__main__":
    print(publish_example())
