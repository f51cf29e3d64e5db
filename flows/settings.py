"""From a user's words to a run and its place; anything wrong is refused here, before work starts. Knows no Prefect."""

import os
from pathlib import Path

import torch

from excel_core.clip_weights import parse_clip_name
from excel_core.config import RunSpec
from excel_core.errors import SettingError
from excel_core.presets import preset, with_settings
from tasks.dataset import check_layout
from tasks.prompt_files import descriptions_file, prompts_file
from tasks.stage import Place

__all__ = ["make_place", "make_run"]


def make_run(preset_name: str, method: str, settings: list[str], clip: str | None) -> RunSpec:
    """The run's spec; anything wrong in it is refused here, before work starts."""
    run = with_settings(preset(preset_name, method), settings + ([f"clip.model={clip}"] if clip else []))
    parse_clip_name(run.clip.model)
    check_layout(run.dataset)
    prompts_file(run.dataset.prompts)
    descriptions_file(run.dataset.prompts)
    return run


def make_place(run: RunSpec, data: str | None, store: str | None, device: str) -> Place:
    """Where the run happens, with absolute paths; refuses a missing data folder or device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingError("--device cuda: this PyTorch sees no CUDA device; use --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise SettingError("--device mps: this PyTorch sees no MPS device; use --device cpu")
    if device not in ("cpu", "cuda", "mps"):
        raise SettingError(f"unknown device {device!r}; valid: cpu, cuda, mps")
    if run.dataset.layout == "world":
        data = None
    elif data is None:
        raise SettingError(f"preset {run.preset!r} needs a data folder: pass --data DIR")
    elif not Path(data).is_dir():
        raise SettingError(f"data folder {data!r} does not exist")
    root = Path(store or os.environ.get("EXCEL_STORE") or "runs").resolve()
    return Place(store=root, data=Path(data).resolve() if data else None, device=device)
