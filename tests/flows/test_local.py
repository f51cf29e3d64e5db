"""What `excel up` and `excel down` refuse, remember and keep to themselves; no server is started here."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from excel_core.errors import ServerError, SettingError
from flows.cli import app
from flows.cli.run import _use_prefect_of
from flows.local.access import make_credential, without_foreign_settings, write_profile
from flows.local.down import take_down
from flows.local.environment import environment
from flows.local.guard import guarded
from flows.local.private import private_folder
from flows.local.processes import MARK, Process, end, is_running, marked, start_detached
from flows.local.state import Installation, alone, call_api, keep_private, read_state, running_server, write_state
from flows.local.up import bring_up
from flows.local.up_request import UpRequest, without_password

KEY = "excel:0123456789abcdefghij"
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
    key = _home(tmp_path, now)
    assert read_state(tmp_path) == Installation("m", 4321, "SQLite", server=sleeper, worker=None, deployed="d", credential=key)
    assert running_server(tmp_path).ui == "http://127.0.0.1:4321"
    end([sleeper], 0)
    assert running_server(tmp_path) is None and read_state(tmp_path).mark == "m"


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
    assert without_password(database) == shown


def test_a_wrong_database_is_refused_unshown(tmp_path):
    ran = CliRunner().invoke(app, ["up", "--store", str(tmp_path / "s")], env={"EXCEL_DATABASE_URL": f"mysql://u:{PASSWORD}@h"})
    assert isinstance(ran.exception, SettingError) and "postgresql+asyncpg://USER" in str(ran.exception)
    assert PASSWORD not in ran.output + str(ran.exception) + repr(UpRequest(tmp_path, database=DATABASE))


def test_only_the_server_gets_the_password_and_only_the_worker_the_models_key(tmp_path, monkeypatch):
    monkeypatch.setenv("EXCEL_DATABASE_URL", DATABASE)
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", DATABASE)
    monkeypatch.setenv("PREFECT_API_KEY", "another server's")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "*")
    now = Installation("m", 4321, "shown", credential=KEY)
    for role in ("server", "worker", "setup"):
        env = environment(UpRequest(tmp_path, database=DATABASE), now, role)
        assert [name for name, value in env.items() if PASSWORD in value] == (
            ["PREFECT_API_DATABASE_CONNECTION_URL"] if role == "server" else []
        )
        assert ("OPENAI_API_KEY" in env) == (role == "worker")
        assert env["PREFECT_API_URL"] == "http://127.0.0.1:4321/api" and env["EXCEL_STORE"] == str(tmp_path)
        assert env[MARK] == f"m/{role}" and "PREFECT_API_KEY" not in env and "PREFECT_SERVER_CORS_ALLOWED_ORIGINS" not in env
        assert env["PREFECT_API_AUTH_STRING"] == env["PREFECT_SERVER_API_AUTH_STRING"] == KEY


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
    monkeypatch.setattr("flows.local.up.serve_command", lambda listening: [sys.executable, "-c", "print('why')"])
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


def test_the_key_is_random_and_shown_nowhere(tmp_path):
    homes = [tmp_path / name for name in "ab"]
    for home in homes:
        private_folder(home, print)
    keys = [make_credential(home) for home in homes]
    assert keys[0] != keys[1] and all(len(key) > 40 for key in keys)
    assert [make_credential(home) for home in homes] == keys
    now = Installation("m", 4321, "SQLite", credential=keys[0])
    write_state(homes[0], now)
    assert keys[0] not in repr(now) + (homes[0] / "up.json").read_text()
    (homes[0] / "credential").write_text("x:short")
    assert make_credential(homes[0]) not in ("x:short", keys[0])


def test_files_are_private_from_their_first_moment(tmp_path, monkeypatch):
    modes = []
    opened = os.open

    def noted(path, flags, mode=0o777, **options):
        if flags & os.O_CREAT and str(path).startswith(str(tmp_path)):
            modes.append(mode)
        return opened(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", noted)
    before = os.umask(0)
    try:
        keep_private(tmp_path / "prefect")
        write_state(tmp_path / "prefect", Installation("m", 4321, "SQLite"))
    finally:
        os.umask(before)
    assert len(modes) == 4 and set(modes) == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "prefect").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "prefect").stat().st_mode) == 0o700


def test_what_others_could_read_is_shut_with_a_word(tmp_path):
    home, elsewhere = tmp_path / "prefect", tmp_path / "elsewhere"
    (home / "logs").mkdir(parents=True)
    elsewhere.write_text("")
    for path, mode in ((home, 0o755), (home / "logs", 0o775), (elsewhere, 0o644)):
        path.chmod(mode)
    (home / "prefect.db").touch(0o644)
    (home / "link").symlink_to(elsewhere)
    messages = []
    private_folder(home, messages.append)
    assert messages == [f"{home}: other users of this machine could read it; now only you can"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home, home / "logs", home / "prefect.db", elsewhere)] == [
        0o700, 0o700, 0o600, 0o644,
    ]  # fmt: skip
    private_folder(home, messages.append)
    assert len(messages) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("name", ["", "profiles.toml"])
def test_another_users_folder_is_refused(name, tmp_path):
    """It could hold a profile that leads elsewhere, and its user could read what we write."""
    home = tmp_path / "prefect"
    keep_private(home)
    os.chown(home / name, 65534, 65534)
    with pytest.raises(SettingError, match="belongs to user nobody: choose another --store, or set PREFECT_HOME"):
        keep_private(home)


def test_prefects_own_commands_find_the_server_and_its_key(tmp_path):
    keep_private(tmp_path / "prefect")
    profile = tmp_path / "prefect" / "profiles.toml"
    profile.write_text(profile.read_text() + 'PREFECT_LOGGING_LEVEL = "DEBUG"\n[profiles.other]\nPREFECT_API_KEY = "k"\n')
    write_profile(tmp_path / "prefect", {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_API_AUTH_STRING": KEY})
    code = (
        "from prefect.settings import get_current_settings as get; s = get();"
        "print(s.api.url, s.api.auth_string.get_secret_value(), s.logging.level, s.server.api.csrf_protection_enabled,"
        "s.server.api.cors_allowed_origins)"
    )
    env = without_foreign_settings() | {"PREFECT_HOME": str(tmp_path / "prefect")}
    env.pop("PREFECT_LOGGING_LEVEL", None)
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert said.split() == ["http://127.0.0.1:9/api", KEY, "DEBUG", "True", "http://127.0.0.1:4200"]
    keep_private(tmp_path / "prefect")  # no server runs: none is named, so that nobody else is asked with the key
    profiles = tomllib.loads(profile.read_text())["profiles"]
    assert "PREFECT_API_URL" not in profiles["excel"] and profiles["other"] == {"PREFECT_API_KEY": "k"}


@pytest.mark.parametrize(
    ("named", "used"),
    [(None, KEY), ("http://127.0.0.1:4321/api", KEY), ("http://localhost:4321/api", KEY), ("https://other/api", "")],
)
def test_the_key_goes_to_its_own_server_alone(named, used, sleeper, tmp_path, monkeypatch):
    _home(tmp_path, Installation("m", 4321, "SQLite", server=sleeper))
    (tmp_path / "prefect" / "credential").write_text(KEY)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    if named:
        monkeypatch.setenv("PREFECT_API_URL", named)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    _use_prefect_of(tmp_path)
    assert os.environ["PREFECT_API_AUTH_STRING"] == used


def test_a_server_without_a_key_is_not_used_on(sleeper, tmp_path):
    _home(tmp_path, Installation("m", 4321, "SQLite", server=sleeper))
    (tmp_path / "prefect" / "credential").unlink()
    with pytest.raises(SettingError, match="without a key or with another one; first `excel down`"):
        bring_up(UpRequest(tmp_path), print)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("host", "127.0.0.1:4200")], 200),
        ([("host", "localhost:5000"), ("origin", "http://localhost:5000")], 200),
        ([("host", "[::1]:4200")], 200),
        ([("host", "127.0.0.1")], 200),
        ([], 403),
        ([("host", "127.0.0.1:4200"), ("host", "evil.example")], 403),
        ([("host", "127.0.0.1.evil.example")], 403),
        ([("host", "evil.example:4200")], 403),
        ([("host", "127.0.0.1:4200"), ("origin", "http://localhost:4200")], 403),
        ([("host", "127.0.0.1:4200"), ("origin", "https://127.0.0.1:4200")], 403),
        ([("host", "127.0.0.1:4200"), ("origin", "null")], 403),
    ],
)
def test_the_guard_answers_its_own_origin(headers, status):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"headers": [(name.encode(), value.encode()) for name, value in headers]}
    asyncio.run(guarded(app)(scope | {"type": "http"}, None, send))
    assert sent[0]["status"] == status and (b"x-frame-options", b"DENY") in sent[0]["headers"]
    sent.clear()
    if status == 403:
        asyncio.run(guarded(app)(scope | {"type": "websocket"}, None, send))
        assert sent == [{"type": "websocket.close", "code": 1008}]


def _home(store, now):
    """STORE/prefect with `now` in its up.json, and a key → the key."""
    (store / "prefect").mkdir(mode=0o700)
    write_state(store / "prefect", now)
    assert json.loads((store / "prefect" / "up.json").read_text())["format"] == "excel-up/2"
    return make_credential(store / "prefect")
