"""What `excel up` and `excel down` refuse, remember and keep to themselves; no server is started here."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from excel_core.errors import ServerError, SettingError
from flows.cli import app
from flows.local import up as local
from flows.local.processes import MARK, Process, end, is_running, marked, start_detached
from flows.local.state import Installation, alone, api_url, call_api, read_state, write_state
from flows.local.up import UpRequest, bring_up, take_down

PASSWORD = "s3/cr@t:?"
DATABASE = f"postgresql+asyncpg://excel:{PASSWORD}@127.0.0.1:5432/prefect?ssl=require"


@pytest.fixture
def sleeper(tmp_path):
    """A detached process with the mark 'm/worker' that ends with the test."""
    command = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]
    process = start_detached(command, {MARK: "m/worker"}, tmp_path, tmp_path / "log")
    yield process
    end([process], 0)


def test_a_detached_process_is_found_and_ended(sleeper, tmp_path):
    while "up" not in (tmp_path / "log").read_text():
        pass
    assert is_running(sleeper) and os.getsid(sleeper.pid) == sleeper.pid
    assert set(marked("m/worker")) == {sleeper} and not marked("m")
    end([sleeper], 30)
    assert not is_running(sleeper) and not marked("m/worker")


def test_a_recycled_pid_is_left_alone(sleeper, tmp_path):
    stranger = Process(sleeper.pid, sleeper.start - 1)
    assert not is_running(stranger)
    end([stranger], 0)
    assert is_running(sleeper)
    _home(tmp_path, Installation("other", 4200, "SQLite", server=stranger, worker=stranger))
    messages = []
    take_down(tmp_path, messages.append)
    assert messages == ["worker: none", "server: was gone already"] and is_running(sleeper)
    assert not (tmp_path / "prefect" / "up.json").exists()


def test_what_runs_is_remembered(sleeper, tmp_path):
    now = Installation("m", 4321, "SQLite", server=sleeper, worker=Process(sleeper.pid, 1), deployed="d")
    _home(tmp_path, now)
    assert read_state(tmp_path) == Installation("m", 4321, "SQLite", server=sleeper, worker=None, deployed="d")
    assert api_url(tmp_path) == "http://127.0.0.1:4321/api"
    end([sleeper], 0)
    assert api_url(tmp_path) is None and read_state(tmp_path).mark == "m"


def test_a_port_in_use_is_refused_before_anything_is_made(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SettingError, match="in use; nothing was started, choose another --port"):
            bring_up(UpRequest(tmp_path / "s", port=other.getsockname()[1]), print)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 4322}, "uses port 4321; first `excel down`"),
        ({"database": DATABASE}, "runs with SQLite; first `excel down`"),
    ],
)
def test_a_running_server_is_not_moved(changes, message, sleeper, tmp_path):
    _home(tmp_path, Installation("m", 4321, "SQLite", server=sleeper))
    with pytest.raises(SettingError, match=message):
        bring_up(UpRequest(tmp_path, **changes), print)


def test_a_lost_database_is_asked_for_again(tmp_path):
    _home(tmp_path, Installation("m", 4321, "postgresql+asyncpg://excel@db/prefect"))
    with pytest.raises(SettingError, match="give --database or EXCEL_DATABASE_URL again"):
        bring_up(UpRequest(tmp_path), print)


@pytest.mark.parametrize(
    ("database", "shown"),
    [
        (None, "SQLite"),
        (DATABASE, "postgresql+asyncpg://excel@127.0.0.1:5432/prefect"),
        ("postgresql+asyncpg://excel@/prefect?host=/tmp&password=x", "postgresql+asyncpg://excel@/prefect"),
        ("sqlite+aiosqlite:////tmp/a.db", "sqlite+aiosqlite:////tmp/a.db"),
    ],
)
def test_databases_are_shown_without_password(database, shown):
    assert local._without_password(database) == shown


def test_a_wrong_database_is_refused_unshown(tmp_path):
    ran = CliRunner().invoke(app, ["up", "--store", str(tmp_path / "s")], env={"EXCEL_DATABASE_URL": f"mysql://u:{PASSWORD}@h"})
    assert isinstance(ran.exception, SettingError) and "postgresql+asyncpg://USER" in str(ran.exception)
    assert PASSWORD not in ran.output + str(ran.exception) + repr(UpRequest(tmp_path, database=DATABASE))


def test_only_the_server_gets_the_password(tmp_path, monkeypatch):
    monkeypatch.setenv("EXCEL_DATABASE_URL", DATABASE)
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", DATABASE)
    monkeypatch.setenv("PREFECT_API_KEY", "another server's")
    now = Installation("m", 4321, "shown")
    for role in ("server", "worker", "setup"):
        env = local._environment(UpRequest(tmp_path, database=DATABASE), now, role)
        assert [name for name, value in env.items() if PASSWORD in value] == (
            ["PREFECT_API_DATABASE_CONNECTION_URL"] if role == "server" else []
        )
        assert env["PREFECT_API_URL"] == "http://127.0.0.1:4321/api" and env["EXCEL_STORE"] == str(tmp_path)
        assert env[MARK] == f"m/{role}" and "PREFECT_API_KEY" not in env


def test_one_at_a_time(tmp_path):
    with alone(tmp_path), pytest.raises(ServerError, match="wait for it"), alone(tmp_path):
        pass


def test_down_where_nothing_runs(tmp_path):
    ran = CliRunner().invoke(app, ["down", "--store", str(tmp_path)])
    assert ran.exit_code == 0 and ran.output.startswith(f"nothing of `excel up` runs in {tmp_path}")
    _home(tmp_path, Installation("m", 4321, "SQLite"))
    (tmp_path / "prefect" / "up.json").write_text("half")
    with pytest.raises(ServerError, match=r"up\.json cannot be read"):
        take_down(tmp_path, print)


def test_a_server_that_ends_as_it_starts_names_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_prefect", lambda *arguments: [sys.executable, "-c", "print('why')"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ServerError, match="ended as it started; its log: .*server.log"):
        bring_up(UpRequest(tmp_path, port=port), print)
    assert (tmp_path / "prefect" / "logs" / "server.log").read_text() == "why\n"


def test_a_locked_database_is_asked_again():
    answers = [503, 503, 200, 404]

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answers.pop(0))
            self.end_headers()
            self.wfile.write(b"[1]")

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        now = Installation("m", server.server_port, "SQLite")
        assert call_api(now, "x") == [1] and call_api(now, "x") is None and not answers
        server.shutdown()
    assert call_api(now, "x") is None


def test_the_command_line_is_light():
    code = "import sys, flows.cli; print(sorted({'torch', 'prefect'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def _home(store, now):
    (store / "prefect").mkdir()
    write_state(store / "prefect", now)
    assert json.loads((store / "prefect" / "up.json").read_text())["format"] == "excel-up/1"
