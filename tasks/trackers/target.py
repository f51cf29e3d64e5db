"""Where a run is logged to: `tensorboard:FOLDER`, `mlflow:FOLDER` or `mlflow:http://…`, `wandb:PROJECT`. What is wrong with it
is told before work starts; a server that does not answer is noticed later, and ends no run."""

import netrc
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from excel_core.errors import SettingError, shown
from excel_core.text.key_transport import is_web_address, require_encrypted

__all__ = ["OFFLINE", "TOOLS", "LogTarget", "absolute", "check_target", "parse_target"]

TOOLS = {
    "tensorboard": "tensorboard:FOLDER",
    "mlflow": "mlflow:FOLDER or mlflow:http://HOST:PORT",
    "wandb": "wandb:PROJECT or wandb:ENTITY/PROJECT",
}
PACKAGES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy"), "wandb": ("wandb",)}
PROJECT = re.compile(r"([\w.-]{1,128}/)?[^/\\#?%:\s]{1,128}")
OFFLINE = ("offline", "dryrun", "disabled")  # values of WANDB_MODE
WANDB_SERVER = "https://api.wandb.ai"


@dataclass(frozen=True)
class LogTarget:
    """`is_live`: told while the run trains, where W&B takes a project; else a finished run, where it takes a folder."""

    tool: str
    place: str
    is_live: bool = True

    def __str__(self) -> str:
        """As the option that names it."""
        return f"--log {self.tool}:{self.place}" if self.is_live else f"--to {self.tool}"


def parse_target(text: str) -> LogTarget:
    """SettingError for another form, with the valid ones."""
    tool, _, place = text.partition(":")
    if tool not in TOOLS or not place.strip():  # what follows the tool may be an address with a password
        raise SettingError(f"--log {shown(tool)}: expected TOOL:PLACE; valid: {', '.join(TOOLS.values())}")
    is_folder = tool != "wandb" and "://" not in place
    return LogTarget(tool, os.path.expanduser(place) if is_folder else place)  # no shell expands `~` behind a colon


def absolute(text: str) -> str:
    """The same target from any folder."""
    target = parse_target(text)
    is_folder = target.tool != "wandb" and "://" not in target.place
    return f"{target.tool}:{Path(target.place).resolve()}" if is_folder else text


def check_target(target: LogTarget) -> None:
    """SettingError for a tool that is unknown or not installed, a place that cannot be one, and a key that is missing or would
    cross a network unencrypted."""
    if target.tool not in TOOLS:
        raise SettingError(f"{target}: valid: {', '.join(TOOLS)}")
    if target.tool == "mlflow" and "://" in target.place:
        _check_server(target)
    elif target.tool == "wandb" and target.is_live:
        _check_project(target)
    else:
        _check_folder(target)
    if any(find_spec(package) is None for package in PACKAGES[target.tool]):
        raise SettingError(f"{target} needs {target.tool}, which is not installed: pip install 'excel-wsss[trackers]'")


def _check_folder(target: LogTarget) -> None:
    folder = Path(target.place).resolve()
    nearest = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        raise SettingError(f"{target}: {nearest} is a file; name a folder, which is made where it is missing")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise SettingError(f"{target}: {nearest} cannot be written; name another folder")


def _check_server(target: LogTarget) -> None:
    """MLflow's client takes keys from the environment and from ~/.mlflow/credentials; an address would show them."""
    if "@" in target.place:
        raise SettingError(
            "mlflow: the address holds a user's name or password, which would be shown and stored; set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment instead"
        )
    if not is_web_address(target.place):
        raise SettingError(f"{target}: expected a folder, http://HOST:PORT or https://HOST")
    variables = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    if any(os.environ.get(name) for name in variables) or (Path.home() / ".mlflow" / "credentials").is_file():
        require_encrypted(target.place, "MLflow's key", "mlflow")


def _check_project(target: LogTarget) -> None:
    if not PROJECT.fullmatch(target.place):
        raise SettingError(f"{target}: no name of a project; expected {TOOLS['wandb']}")
    if os.environ.get("WANDB_MODE") in OFFLINE:
        return
    server = os.environ.get("WANDB_BASE_URL") or WANDB_SERVER
    if not is_web_address(server):
        raise SettingError("WANDB_BASE_URL: expected http://HOST:PORT or https://HOST")
    if not os.environ.get("WANDB_API_KEY") and not _is_in_netrc(urlsplit(server).hostname or ""):
        raise SettingError(
            f"{target}: W&B has no key here; set WANDB_API_KEY, or run `wandb login`, or set WANDB_MODE=offline to send the "
            "run later"
        )
    require_encrypted(server, "W&B's key", "WANDB_BASE_URL")


def _is_in_netrc(host: str) -> bool:
    """Whether `wandb login` has kept a key."""
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
