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


@pytest.fixture(scope="session")
def scene() -> Any:
    """A drawn scene of 128 pixels a side that shows two classes."""
    from excel_core.world.scenes import render_scene

    return next(scene for scene in (render_scene(seed, 128) for seed in range(1_000_000, 1_000_050)) if len(scene.labels) == 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A PhotoLabeller by class names, with excel-tiny."""
    from flows.live.labeller import PhotoLabeller
    from flows.request import RunRequest

    settings = ["cams.image_size=128", "cams.normalisation=clip", "describe.n=4", "knowledge.attributes=8"]
    store = str(tmp_path_factory.mktemp("live") / "store")
    return PhotoLabeller(RunRequest.checked(preset="photos", clip="excel-tiny", settings=settings, store=store))
