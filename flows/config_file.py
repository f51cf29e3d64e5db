"""`--config FILE.yaml`: options and settings of a run in a file, and the file that each run leaves to be repeated by.

preset: voc                      # options by their names on the command line; whatever is given there wins
data: /data/VOC2012
device: cuda
settings:                        # any field of any stage, as groups; or a list of stage.field=value
  train: {iterations: 20000}
  refine: {crf: {enabled: false}}
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml

from excel_core.config.setting_text import read_setting, read_settings_file
from excel_core.errors import SettingError, shown
from excel_core.text_files import decoded_text
from flows.request import Request
from tasks.engine.object_store import remote_url
from tasks.trackers.target import absolute

__all__ = ["config_of_current_run", "of_request", "read_config"]

PATHS = ("data", "coco", "checkpoint")  # options that name files or folders beside the store
COMMANDS = {"excel": "excel run", "ablation": "excel ablation", "benchmark": "excel benchmark", "paper": "excel paper"}
_request: ContextVar[Request | None] = ContextVar("request", default=None)


def read_config(path: Path, options: Collection[str]) -> dict[str, Any]:
    """The file's options, among them `settings` as texts stage.field=value. SettingError, which names the file, for one that is
    not readable, and for an option that is not among `options`."""
    try:
        document = read_settings_file(decoded_text(path.read_bytes()))
    except OSError as error:
        raise SettingError(f"--config {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SettingError(f"--config {path}: is no text in UTF-8; expected YAML") from None
    except SettingError as error:
        raise SettingError(f"--config {path}: {error}") from None
    if not isinstance(document, dict):
        raise SettingError(f"--config {path}: expected options, name: value; got {shown(document)}")
    unknown = [name for name in document if name not in options]
    if unknown:
        raise SettingError(f"--config {path}: this command has no option {shown(unknown[0])}; valid: {', '.join(options)}")
    option_values = {str(name): value for name, value in document.items() if value is not None}
    if "settings" in option_values:
        option_values["settings"] = _settings_of(path, option_values["settings"])
    return option_values


def _settings_of(path: Path, settings: Any) -> list[str]:
    if isinstance(settings, dict):
        return [f"{name}={json.dumps(value, ensure_ascii=False, default=str)}" for name, value in _leaves(path, settings, "")]
    if isinstance(settings, list) and all(isinstance(setting, str) for setting in settings):
        return settings
    raise SettingError(
        f"--config {path}: settings: expected groups, stage: {{field: value}}, or a list of stage.field=value; got "
        f"{shown(settings)}"
    )


def _leaves(path: Path, group: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every field."""
    for name, value in group.items():
        if isinstance(value, dict):
            yield from _leaves(path, value, f"{prefix}{name}.")
        elif "." not in f"{prefix}{name}":
            raise SettingError(f"--config {path}: settings.{name}: expected its fields, field: value; got {shown(value)}")
        else:
            yield f"{prefix}{name}", value


@contextmanager
def of_request(request: Request) -> Iterator[None]:
    """Around the body of a flow: runs that begin in it were asked for by `request`."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


def config_of_current_run(flow: str, store: Path) -> str:
    """The file that repeats the run which begins now, as text; "" outside a flow. Its paths are absolute, but for those in
    settings."""
    request = _request.get()
    if request is None:
        return ""
    options = request.model_dump(mode="json", exclude={"settings", "edits"}, exclude_defaults=True)
    first = next(iter(type(request).model_fields.keys() & {"preset", "table"}))  # it stands in the file whatever it is
    options = {first: getattr(request, first)} | options
    options |= {name: str(Path(options[name]).resolve()) for name in PATHS if name in options}
    if "log" in options:
        options["log"] = absolute(options["log"])
    options["store"] = remote_url(store) or str(store)
    settings = _grouped(getattr(request, "edits", None) or {}, request.settings)
    again = f"{COMMANDS.get(flow, 'excel run')} --config THIS_FILE"
    note = "" if flow in COMMANDS else f", which runs the whole chain; this was `{flow}` alone"
    head = f"# Again: {again}{note}\n# Paths in settings are relative to {Path.cwd()}\n"
    return head + yaml.safe_dump(options | ({"settings": settings} if settings else {}), sort_keys=False, allow_unicode=True)


def _grouped(edits: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """`edits`, then each stage.field=value, as groups; the last one of a field counts, as in a run."""
    groups: dict[str, Any] = json.loads(json.dumps(edits))
    for setting in settings:
        name, _, text = setting.partition("=")
        edit = read_setting(text)
        for key in reversed(name.strip().split(".")):
            edit = {key: edit}
        _merge(groups, edit)
    return groups


def _merge(groups: dict[str, Any], edit: Mapping[str, Any]) -> None:
    """Put the fields of `edit` into `groups`; what it does not name stays."""
    for name, value in edit.items():
        if isinstance(value, dict) and isinstance(groups.get(name), dict):
            _merge(groups[name], value)
        else:
            groups[name] = value
