"""Descriptions by a language model in a real flow: the key from a Secret block reaches the server, and nothing else."""

import base64
import logging
import secrets
from pathlib import Path

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName, LogFilter
from prefect.settings import PREFECT_HOME

from excel_core.errors import DescriptionError, SettingError
from flows import stages
from tests.tasks.chat_server import answer, chat_server, content, says, status

pytestmark = pytest.mark.usefixtures("prefect_server")
BLOCK = "excel-test-key"


@pytest.fixture
def key(monkeypatch):
    """A key of its own, in a Secret block alone."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    value = f"sk-{secrets.token_hex(20)}"
    Secret(value=value).save(BLOCK, overwrite=True, _sync=True)
    return value


def _describe(name, server, store, *settings):
    every = [
        "describe.provider=openai", f"describe.base_url={server.url}", f"describe.secret={BLOCK}", "describe.n=3",
        "describe.concurrency=2", "describe.retries=0", *settings,
    ]  # fmt: skip
    stages.describe.with_options(flow_run_name=name)("demo", settings=every, store=str(store))


def _told(name, store, captured):
    """Everything that a run leaves behind where someone might read it, as one text a place."""
    home = Path(PREFECT_HOME.value())
    files = [path for root in (store, home) for path in root.rglob("*") if path.is_file()]
    assert home / "prefect.db" in files
    with get_client(sync_client=True) as client:
        of_run = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        flow_runs = client.read_flow_runs(flow_run_filter=of_run)
        task_runs = client.read_task_runs(flow_run_filter=of_run)
        artifacts = client.read_artifacts(flow_run_filter=of_run)
        logs = client.read_logs(LogFilter())
    assert flow_runs and task_runs
    told = {str(path): path.read_bytes().decode("latin-1") for path in files}
    return told | {"api": repr((flow_runs, task_runs, artifacts, logs)), "output": captured}


def test_the_key_reaches_the_server_and_no_other_place(key, tmp_path, capfd, caplog):
    with caplog.at_level(logging.DEBUG), chat_server(pause=0.2) as server:
        _describe("asked", server, tmp_path / "store")
    assert {seen.headers["authorization"] for seen in server.requests} == {f"Bearer {key}"} and len(server.requests) == 10
    assert server.inside == 2  # as many at a time as describe.concurrency allows
    said = capfd.readouterr()
    for place, text in _told("asked", tmp_path / "store", said.out + said.err + caplog.text).items():
        assert key not in text, place


def test_a_server_that_tells_the_key_is_not_listened_to(key, tmp_path, capfd, caplog):
    script = {"car": [status(401, {"error": {"message": f"wrong key {key}"}})]}
    with caplog.at_level(logging.DEBUG), chat_server(script) as server, pytest.raises(DescriptionError) as caught:
        _describe("echoed", server, tmp_path / "store")
    assert "class 'car'" in str(caught.value) and "[API key]" in str(caught.value) and key not in str(caught.value)
    said = capfd.readouterr()
    for place, text in _told("echoed", tmp_path / "store", said.out + said.err + caplog.text).items():
        assert key not in text, place


def test_a_key_in_disguise_is_kept_nowhere(key, tmp_path, capfd, caplog):
    disguised = [
        base64.b64encode(key.encode()).decode(),
        key.encode().hex(),
        key[::-1],
        base64.b64encode(b"x" + key.encode()).decode(),
    ]
    script = {
        "house": [says([f"a photo of {disguised[0]}"])],
        "car": [status(401, {"error": {"message": f"wrong {disguised[1]}"}})],
        "tree": [answer(model=f"m-{disguised[2]}")],
        "cup": [content(None, refusal=f"not with {disguised[3]}")],
    }
    with caplog.at_level(logging.DEBUG), chat_server(script) as server, pytest.raises(DescriptionError):
        _describe("disguised", server, tmp_path / "store")
    said = capfd.readouterr()
    for place, text in _told("disguised", tmp_path / "store", said.out + said.err + caplog.text).items():
        assert not any(words in text for words in (key, *disguised)), place


def test_plain_http_to_another_machine_is_refused_before_work_starts(key, tmp_path, monkeypatch):
    there = ["describe.provider=openai", f"describe.secret={BLOCK}", "describe.base_url=http://192.0.2.7:8000/v1"]
    with pytest.raises(SettingError, match="plain http.*describe.insecure_http=true"):
        stages.describe("demo", settings=there, store=str(tmp_path))
    assert not list(tmp_path.glob("describe*"))


def test_a_class_that_fails_leaves_the_others_finished(key, tmp_path):
    with chat_server({"house": [says([]), says([])]}) as server:  # the first class, bad again after the repair
        with pytest.raises(DescriptionError, match="class 'house': .*0 of 3 descriptions are usable"):
            _describe("one fails", server, tmp_path)
        assert len(server.about("house")) == 2 and len({seen.about for seen in server.requests}) == 10
        before = len(server.requests)
        _describe("the one again", server, tmp_path)
        assert [seen.about for seen in server.requests[before:]] == ["house"]
        _describe("once more", server, tmp_path)
    assert len(server.requests) == before + 1


def test_a_missing_key_is_refused_before_work_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingError, match="OPENAI_API_KEY.*describe.secret|describe.secret.*OPENAI_API_KEY"):
        stages.describe("demo", settings=["describe.provider=openai"], store=str(tmp_path))
    with pytest.raises(SettingError, match="no Secret block of this name"):
        stages.describe("demo", settings=["describe.provider=openai", "describe.secret=nowhere"], store=str(tmp_path))
    assert not list(tmp_path.glob("describe*"))
