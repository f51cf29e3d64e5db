"""From a user's words to a run and its place; anything wrong is refused here, before work starts. Knows no Prefect."""

import re
from pathlib import Path
from typing import Any

import torch

from excel_core.clip_weights import parse_clip_name
from excel_core.config import RunSpec
from excel_core.datasets.layouts import LAYOUTS
from excel_core.distributed import Team
from excel_core.errors import SettingError
from excel_core.presets import preset, with_edits, with_settings
from flows.local.state import store_folder
from tasks.ask_class import instruction_of
from tasks.dataset import check_layout
from tasks.engine.stage import Place
from tasks.inputs.given_segmenter import check_checkpoint_settings, check_given_segmenter
from tasks.inputs.prompt_files import OWN, bundled_descriptions, class_set, descriptions_file, prompts_file

__all__ = ["MOST_GPUS", "RUNNER_PATTERN", "check_device", "check_runner", "make_place", "make_run"]

MOST_GPUS = 64  # of one machine
RUNNER_PATTERN = r"^(sequential|dask(:tcp://[\w.-]+:\d{1,5})?)$"


def make_run(
    preset_name: str, method: str, settings: list[str], clip: str | None, edits: dict[str, Any] | None = None
) -> RunSpec:
    """The run's spec: the preset under the method, then `edits`, then `settings`, then `clip`. Anything wrong in it is
    refused here, before work starts."""
    run = with_edits(preset(preset_name, method), edits or {})
    run = with_settings(run, settings + ([f"clip.model={clip}"] if clip else []))
    parse_clip_name(run.clip.model)
    check_layout(run.dataset)
    check_checkpoint_settings(run)
    if run.dataset.prompts != OWN:  # else the data folder tells, which is not known here
        prompts_file(run.dataset.prompts)
    if run.describe.provider == "openai":
        instruction_of(run.describe)
    elif run.dataset.prompts != OWN:
        descriptions_file(run.dataset.prompts)
    return run


def check_runner(runner: str) -> str:
    """`runner` itself; SettingError with the valid ones for any other."""
    if not re.fullmatch(RUNNER_PATTERN, runner):
        raise SettingError(f"unknown runner {runner!r}; valid: sequential, dask, dask:tcp://HOST:PORT")
    return runner


def check_device(device: str) -> str:
    """`device` itself; SettingError for an unknown one and one that is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingError("--device cuda: this PyTorch sees no CUDA device; use --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise SettingError("--device mps: this PyTorch sees no MPS device; use --device cpu")
    if device not in ("cpu", "cuda", "mps"):
        raise SettingError(f"unknown device {device!r}; valid: cpu, cuda, mps")
    return device


def make_place(run: RunSpec, data: str | None, store: str | None, device: str, gpus: int = 1) -> Place:
    """Where the run happens, with absolute paths; refuses a missing data folder or device, GPUs that are not there, and a
    checkpoint of other classes or another CLIP (which is loaded for that, where there is a checkpoint)."""
    check_device(device)
    _check_gpus(run, device, gpus)
    if run.dataset.layout == "world":
        data = None
    elif data is None:
        raise SettingError(f"preset {run.preset!r} needs a data folder: pass --data DIR")
    elif not Path(data).is_dir():
        raise SettingError(f"data folder {data!r} does not exist")
    folder = Path(data).resolve() if data else None
    if folder is not None:
        LAYOUTS[run.dataset.layout].check(folder)
    if run.dataset.prompts == OWN:
        _check_own_classes(run, folder)
    check_given_segmenter(run, folder, device)
    return Place(store=store_folder(store), data=folder, device=device, processes=gpus)


def _check_own_classes(run: RunSpec, data: Path | None) -> None:
    """Classes that the data folder tells, and who describes them."""
    class_set(run, data)
    if run.describe.provider == "bundled":
        bundled_descriptions(run, data)


def _check_gpus(run: RunSpec, device: str, gpus: int) -> None:
    if not 1 <= gpus <= MOST_GPUS:
        raise SettingError(f"--gpus {gpus}: expected 1 to {MOST_GPUS}")
    if gpus > 1 and device == "mps":
        raise SettingError(f"--gpus {gpus}: --device mps trains in one process; use --gpus 1")
    if device == "cuda" and gpus > torch.cuda.device_count():
        raise SettingError(f"--gpus {gpus}: this machine has {torch.cuda.device_count()}; use at most that many")
    Team(world=gpus).share(run.train.batch_size)
