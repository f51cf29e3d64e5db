"""Where the prompt files are: the repository's `prompts/`, or a path the user gives."""

from importlib.resources import files
from pathlib import Path

from excel_core.errors import SettingError

__all__ = ["descriptions_file", "prompts_file"]


def prompts_file(name: str) -> Path:
    """`voc` → prompts/voc.yaml; a path to a .yaml file is taken as it is. SettingError lists the valid names."""
    return _find(name, Path(str(files("prompts"))), ".yaml", "dataset.prompts")


def descriptions_file(name: str) -> Path:
    """`voc` → prompts/descriptions/voc.json; for a path to a class file, the .json beside it."""
    folder = Path(str(files("prompts"))) / "descriptions"
    if name.endswith(".yaml"):
        return Path(name).with_suffix(".json")
    return _find(name, folder, ".json", "describe.provider=bundled")


def _find(name: str, folder: Path, suffix: str, field: str) -> Path:
    path = Path(name) if name.endswith(suffix) else folder / f"{name}{suffix}"
    if not path.is_file():
        valid = sorted(found.stem for found in folder.glob(f"*{suffix}"))
        raise SettingError(f"{field}: there is no {name!r}; valid: {', '.join(valid)}, or the path of a {suffix} file")
    return path
