"""What Prefect's database keeps of a run: each artifact once, pictures of the newest alone, and no copy of them as events."""

import sqlite3
import time
from contextlib import closing
from uuid import uuid4

import pytest
from prefect import flow, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import ArtifactSort
from prefect.events.worker import EventsWorker

from artifacts.prefect_artifacts.body import MarkdownBody, TableBody
from artifacts.prefect_artifacts.server import publish_bodies
from excel_core.errors import SettingError
from flows.local.access import server_settings
from flows.local.server_settings import SERVER_SETTINGS
from flows.retention import kept_pictures
from tests.prefect_server import shared_server

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow(name="publishes", persist_result=False)
def _publishes(bodies, scope, keep):
    publish_bodies(bodies, scope, keep)
    return str(runtime.flow_run.id)


@pytest.fixture
def name():
    """Keys of artifacts are the server's: no other test's."""
    return f"t{uuid4().hex[:12]}"


def _picture(name, number):
    return MarkdownBody(f"excel-{name}-a", "A", f"before ![view {number}](data:image/webp;base64,{'A' * 400}) after\n")


def _of_key(key):
    with get_client(sync_client=True) as client:
        by_key = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        return client.read_artifacts(artifact_filter=by_key, sort=ArtifactSort.CREATED_DESC)


def _of_run(run):
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
    return {artifact.key: artifact for artifact in artifacts}


def test_what_is_as_before_is_linked_not_stored_again(name):
    bodies = [_picture(name, 1), TableBody(f"excel-{name}-b", "B", [{"row": "1"}])]
    first = _of_run(_publishes(bodies, name, 5))
    assert set(first) == {body.key for body in bodies}
    second = _of_run(_publishes(bodies, name, 5))
    assert set(second) == {f"excel-unchanged-{name}"}
    page = second[f"excel-unchanged-{name}"].data
    assert all(f"](../../artifacts/artifact/{artifact.id}): " in page for artifact in first.values())
    third = _of_run(_publishes([bodies[0], TableBody(bodies[1].key, "B", [{"row": "2"}])], name, 5))
    assert (
        set(third) == {bodies[1].key, f"excel-unchanged-{name}"} and bodies[1].key not in third[f"excel-unchanged-{name}"].data
    )
    assert set(_of_run(_publishes([MarkdownBody(bodies[0].key, "other words", bodies[0].markdown)], name, 5))) == {
        bodies[0].key
    }


def test_the_newest_keep_their_pictures_and_the_others_say_what_they_showed(name):
    for number in range(4):
        _publishes([_picture(name, number)], name, 9)
    assert all("data:" in artifact.data for artifact in _of_key(f"excel-{name}-a"))
    _publishes([_picture(name, 4)], name, 2)
    pages = [artifact.data for artifact in _of_key(f"excel-{name}-a")]
    assert [("data:" in page, f"view {4 - age}" in page) for age, page in enumerate(pages)] == [(True, True)] * 2 + [
        (False, True)
    ] * 3
    assert pages[-1].endswith("before *view 0* after\n")


def test_more_old_pictures_than_are_read_at_once(name):
    for number in range(13):
        _publishes([_picture(name, number)], name, 99)
    _publishes([_picture(name, 13)], name, 1)
    assert ["data:" in artifact.data for artifact in _of_key(f"excel-{name}-a")] == [True] + [False] * 13


def test_events_of_flow_runs_alone_are_stored(name):
    run = _publishes([_picture(name, 1)], name, 5)
    EventsWorker.drain_all(timeout=30)
    with get_client(sync_client=True) as client:
        about = {"filter": {"any_resource": {"id": [f"prefect.flow-run.{run}"]}}}
        for _ in range(60):  # the server stores them within its flush interval
            stored = {event["event"] for event in client.request("POST", "/events/filter", json=about).json()["events"]}
            if "prefect.flow-run.Completed" in stored:
                break
            time.sleep(1)
    assert "prefect.flow-run.Completed" in stored
    with closing(sqlite3.connect(f"file:{shared_server().database}?mode=ro", uri=True)) as database:
        kinds = {kind for (kind,) in database.execute("SELECT DISTINCT event FROM events")}
        artifacts = database.execute("SELECT count(*) FROM artifact").fetchone()[0]
    assert artifacts and not [kind for kind in kinds if kind.startswith(("prefect.task-run.", "prefect.artifact"))]


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "²"])
def test_a_number_of_pictures_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("EXCEL_KEEP_PICTURES", text)
    with pytest.raises(SettingError, match="EXCEL_KEEP_PICTURES=.* 1 or more"):
        kept_pictures()


def test_a_number_of_pictures(monkeypatch):
    monkeypatch.delenv("EXCEL_KEEP_PICTURES", raising=False)
    assert kept_pictures() == 5
    monkeypatch.setenv("EXCEL_KEEP_PICTURES", "2")
    assert kept_pictures() == 2


def test_the_servers_that_excel_starts_store_as_little_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("PREFECT_SERVER_EVENTS_MESSAGING_BROKER", raising=False)
    assert SERVER_SETTINGS.items() <= server_settings("user:password", 4200).items()
    monkeypatch.setenv("PREFECT_SERVER_EVENTS_MESSAGING_BROKER", "another")
    assert server_settings("user:password", 4200)["PREFECT_SERVER_EVENTS_MESSAGING_BROKER"] == "another"
