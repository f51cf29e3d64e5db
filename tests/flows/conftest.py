"""What the tests of commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run `excel ARGUMENTS` in this process → (exit code, stdout, stderr)."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))  # as `excel` would set it, and undone
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")

    def run(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["excel", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out.out, out.err

    return run
