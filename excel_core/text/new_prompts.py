"""A prompt set of the user's own: a copy of another one, under a name of its own, to edit.

NAME.yaml   the class file, comments included        NAME.json   its descriptions, where the other set has them
"""

import json
import os
import re
import secrets
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import yaml

from excel_core.errors import SettingError, shown
from excel_core.sync import sync_file, sync_folder
from excel_core.text.checked_yaml import compose_yaml, fields, read_text
from excel_core.text.class_sets import descriptions_file, prompts_file
from excel_core.text.prompts import load_prompts

__all__ = ["NewPrompts", "new_prompts"]


class NewPrompts(NamedTuple):
    """The files that were written, and the class file that they were copied from; `descriptions` is None where it has none."""

    classes: Path
    descriptions: Path | None
    source: Path


def new_prompts(name: str, source: str) -> NewPrompts:
    """Copy class set `source` (voc, coco, world or FILE.yaml) to NAME.yaml and NAME.json; NAME may lead to another folder.
    SettingError where one of them exists, where the folder does not, or for a name that no set can have."""
    target = _target(name)
    try:
        original = prompts_file(source)
    except SettingError as error:  # in the words of a run's setting
        raise SettingError(str(error).replace("dataset.prompts", "--from", 1)) from None
    prompts = load_prompts(original)
    copies = {target.with_suffix(".json"): _descriptions(source), target: _renamed(original, target.stem).encode()}
    for path in copies:
        if os.path.lexists(path):
            raise SettingError(f"{path} exists already, and nothing is overwritten; choose another name, or move it away")
    written: list[Path] = []
    try:
        for path, content in copies.items():  # the class file last: a run names it
            if content is not None:
                _write_new(path, content)
                written.append(path)
        if load_prompts(target) != replace(prompts, name=target.stem):
            raise SettingError(f"{shown(name)}: a class file cannot have this name; use letters, digits, - and _")
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    descriptions = target.with_suffix(".json")
    return NewPrompts(target, descriptions if descriptions in written else None, original)


def _target(name: str) -> Path:
    """`mine` or `mine.yaml` → mine.yaml."""
    target = Path(name if name.endswith(".yaml") else f"{name}.yaml")
    if not target.stem or target.stem.startswith(".") or any(not sign.isprintable() for sign in name):
        raise SettingError(f"{shown(name)}: a class file cannot have this name; use letters, digits, - and _")
    if not target.parent.is_dir():
        raise SettingError(f"{shown(name)}: there is no folder {target.parent}; make it first")
    return target


def _descriptions(source: str) -> bytes | None:
    """The file of descriptions that goes with a class file; None where a user's has none beside it."""
    if source.endswith(".yaml") and not Path(source).with_suffix(".json").is_file():
        return None
    return descriptions_file(source).read_bytes()


def _renamed(path: Path, name: str) -> str:
    """The class file's text with another `name`, all else as it stands."""
    text = read_text(path)
    node = fields(path, compose_yaml(path, text), "file", ("name", "template", "classes", "background"))["name"]
    is_plain = re.fullmatch(r"\w[\w.-]*", name) and yaml.safe_load(name) == name
    scalar = name if is_plain else json.dumps(name, ensure_ascii=False)  # a JSON string is one of YAML's
    return f"{text[: node.start_mark.index]}{scalar}{text[node.end_mark.index :]}"


def _write_new(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, and never over another."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")
    try:
        temporary.write_bytes(content)
        sync_file(temporary)
        try:
            os.link(temporary, path)  # unlike a rename, it fails where there is a file
        except FileExistsError:
            raise SettingError(f"{path} exists already, and nothing is overwritten; choose another name") from None
        except OSError:  # a disk without links
            path.open("xb").close()
            os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
