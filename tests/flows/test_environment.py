"""What stands around a command: proxies, locales, servers that are named and gone, a store that is a file."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from socket import socket

import pytest
from typer.testing import CliRunner

from excel_core.errors import SettingError
from flows.cli import app
from flows.local.state import store_folder
from tests.conftest import ROOT
from tests.faults.test_prefect_network import PROGRAM
from tests.prefect_server import PATIENCE_SECONDS, shared_server

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMED = """
import sys
from flows.cli import main
import flows.cli
from flows.named_server import require_named_server
flows.cli.app = require_named_server
main()
"""


@pytest.fixture
def free_port():
    """A port on which nothing listens."""
    with closing(socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _python(program, *arguments, cwd=ROOT, **env):
    """Run it in an environment without proxies and Prefect's settings, but for `env` → exit status and what it says."""
    theirs = ("PREFECT_", "HTTP", "ALL_PROXY", "NO_PROXY", "EXCEL_STORE")
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(theirs)}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)],
        cwd=cwd, env=clean | {"PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1"} | env, capture_output=True,
        timeout=4 * PATIENCE_SECONDS, encoding="utf-8",
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.usefixtures("prefect_server")
def test_a_run_under_dead_proxies_and_in_a_locale_without_encoding(tmp_path):
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
    own = {"PREFECT_API_URL": f"{shared_server().url}/api", "PREFECT_HOME": str(tmp_path / "home")}
    store = tmp_path / "store"
    status, said = _python(PROGRAM, store, **proxies, **own, **C_LOCALE)
    assert status == 0 and "Traceback" not in said, said
    assert list(store.glob("knowledge/*/stage.json"))


def test_a_named_server_that_is_gone_is_a_line(tmp_path, free_port):
    url = f"http://127.0.0.1:{free_port}/api"
    place = tmp_path / "project"
    place.mkdir()
    settings = {
        "prefect.toml": f'[api]\nurl = "{url}"\n',
        "pyproject.toml": f'[tool.prefect.api]\nurl = "{url}"\n',
        ".env": f"PREFECT_API_URL={url}\n",
    }
    for name, text in settings.items():
        (place / name).write_text(text)
        status, said = _python(NAMED, cwd=place, PREFECT_HOME=str(tmp_path / "home"))
        assert status == 2 and said.count("\n") == 1, said
        assert said.startswith(f"error: Prefect's server at {url}, named by ") and f"{place / name}, does not answer" in said
        assert "Connection refused" in said and "take that setting out" in said
        (place / name).unlink()


def test_a_variable_goes_before_files_and_shows_no_password(tmp_path, free_port):
    (tmp_path / "prefect.toml").write_text('[api]\nurl = "http://127.0.0.1:1/api"\n')
    url = f"http://me:word@127.0.0.1:{free_port}/api"
    status, said = _python(NAMED, cwd=tmp_path, PREFECT_HOME=str(tmp_path / "home"), PREFECT_API_URL=url)
    assert status == 2 and "word" not in said, said
    assert f"at http://127.0.0.1:{free_port}/api, named by the environment variable PREFECT_API_URL, does not answer" in said


@pytest.mark.parametrize(
    "named",
    [
        {"PREFECT_API_URL": "http://192.0.2.1:4200/api", "PREFECT_API_AUTH_STRING": "me:geheim"},
        {"PREFECT_API_URL": "http://192.0.2.1:4200/api", "PREFECT_API_KEY": "geheim"},
        {"PREFECT_API_URL": "http://me:geheim@192.0.2.1:4200/api"},
    ],
)
def test_the_key_of_a_named_server_goes_over_plain_http_to_this_machine_alone(tmp_path, named):
    status, said = _python(NAMED, cwd=tmp_path, PREFECT_HOME=str(tmp_path / "home"), EXCEL_INSECURE_HTTP="192.0.2.2", **named)
    assert status == 2 and said.count("\n") == 1 and "geheim" not in said, said
    assert "PREFECT_API_URL http://192.0.2.1:4200/api: the key of Prefect's server would go to another machine" in said


def test_no_server_is_named(tmp_path):
    assert _python(NAMED, cwd=tmp_path, PREFECT_HOME=str(tmp_path / "home")) == (0, "")


@pytest.mark.parametrize("below", ["", "inside/it"])
def test_a_store_that_is_a_file_is_refused(tmp_path, monkeypatch, below):
    file = tmp_path / "file"
    file.touch()
    store = str(file / below) if below else str(file)
    for command in (["plan", "demo"], ["run", "demo"], ["demo"], ["runs"], ["gc"], ["verify"], ["up"], ["down"]):
        ran = CliRunner().invoke(app, [*command, "--store", store])
        assert isinstance(ran.exception, SettingError), command
        assert str(ran.exception) == f"--store {store}: {file} is a file; name a folder, which is made where it is missing"
    monkeypatch.setenv("EXCEL_STORE", store)
    with pytest.raises(SettingError, match="^EXCEL_STORE "):
        store_folder(None)


def test_names_of_any_script_in_a_locale_without_encoding(tmp_path):
    """`excel` itself, whose arguments, files and output have letters that the locale lacks."""
    store = tmp_path / "Spülküche"
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | C_LOCALE
    command = [Path(sys.executable).with_name("excel"), "prompts", "check", store / "classes.yaml"]
    store.mkdir()
    (store / "classes.yaml").write_text((ROOT / "prompts" / "world.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    ran = subprocess.run(command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8")
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    assert ran.stdout.startswith(f"{store / 'classes.yaml'}: 10 classes")


def test_every_character_is_written_in_any_locale():
    for locale in (C_LOCALE, {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}):
        program = (
            "import sys; from flows.cli import main; import flows.cli\n"
            "flows.cli.app = lambda: print('A \\u2212 \\xe9 \\xd7'); main()"
        )
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, env=os.environ | locale, capture_output=True
        )
        assert ran.returncode == 0 and ran.stdout in ("A − é ×\n".encode(), "A ? é ×\n".encode("latin-1")), ran
