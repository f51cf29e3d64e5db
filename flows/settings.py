"""From a user's words to a run and its place; anything wrong is refused here, before work starts. Knows no Prefect."""

import re
from pathlib import Path
from typing import Any

import torch

from excel_core.config import RunSpec
from excel_core.config.presets import preset, with_edits, with_settings
from excel_core.datasets.layouts import LAYOUTS
from excel_core.datasets.masks import require_masks, voc_mask_reader
from excel_core.datasets.voc_lists import image_file, read_split
from excel_core.distributed import ProcessGroup
from excel_core.errors import SettingError
from excel_core.models.clip_weights import clip_sizes
from excel_core.models.fitting import require_fitting
from excel_core.text.attributes_file import load_attributes
from excel_core.text.class_sets import (
    DATA_CLASSES,
    class_set,
    descriptions_file,
    given_descriptions,
    prompts_file,
    written_descriptions,
)
from flows.local.state import store_folder
from tasks.ask_class import instruction_of
from tasks.dataset import check_layout
from tasks.engine.stage import RunEnvironment
from tasks.inputs.given_segmenter import check_checkpoint_settings, check_given_segmenter

__all__ = ["MOST_GPUS", "RUNNER_PATTERN", "check_data", "check_device", "check_runner", "make_environment", "make_run"]

MOST_GPUS = 64  # of one machine
RUNNER_PATTERN = r"^(sequential|dask(:tcp://[\w.-]+:\d{1,5})?)$"


def make_run(
    preset_name: str, method: str, settings: list[str], clip: str | None, edits: dict[str, Any] | None = None
) -> RunSpec:
    """The run's spec: the preset under the method, then `edits`, then `settings`, then `clip`. Anything wrong in it is
    refused here, before work starts."""
    run = with_edits(preset(preset_name, method), edits or {})
    run = with_settings(run, settings + ([f"clip.model={clip}"] if clip else []))
    require_fitting(run)
    _check_supervision(run)
    check_layout(run.dataset)
    check_checkpoint_settings(run)
    if run.dataset.prompts != DATA_CLASSES:  # else the data folder tells, which is not known here
        prompts_file(run.dataset.prompts)
    _check_descriptions(run)
    _check_attributes(run)
    return run


def _check_descriptions(run: RunSpec) -> None:
    """The source of descriptions, as far as it can be checked without the data folder."""
    spec, prompts = run.describe, run.dataset.prompts
    if spec.file is not None and spec.provider != "file":
        raise SettingError(
            f"describe.file={spec.file} is read by describe.provider=file alone, got {spec.provider}; "
            "add --set describe.provider=file or leave the file out"
        )
    if spec.provider == "openai":
        instruction_of(spec)
    elif spec.provider == "file":
        given_descriptions(spec)
        if prompts != DATA_CLASSES:
            written_descriptions(run, None)
    elif prompts != DATA_CLASSES:
        descriptions_file(prompts)


def _check_attributes(run: RunSpec) -> None:
    """Ready attributes: whether the mode uses them, and whether the file is readable and of the CLIP's width."""
    spec = run.knowledge
    if spec.attributes_file is None:
        return
    if spec.mode != "attributes":
        raise SettingError(
            f"knowledge.attributes_file={spec.attributes_file} is read by knowledge.mode=attributes alone, got {spec.mode}; "
            "leave one of the two out"
        )
    attributes = load_attributes(Path(spec.attributes_file), clip_sizes(run.clip.model).joint)
    if spec.keep is not None and spec.keep > len(attributes):
        raise SettingError(f"knowledge.keep={spec.keep} exceeds the {len(attributes)} attributes of {spec.attributes_file}")


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


def make_environment(run: RunSpec, data: str | None, store: str | None, device: str, gpus: int = 1) -> RunEnvironment:
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
    layout = LAYOUTS[run.dataset.layout]
    if folder is not None:
        layout.check(folder)
    if run.dataset.prompts == DATA_CLASSES:
        _check_own_classes(run, folder)
    if folder is not None:
        check_data(run, folder)
    check_given_segmenter(run, folder, device)
    return RunEnvironment(store=store_folder(store), data=folder, device=device, processes=gpus)


def check_data(run: RunSpec, data: Path) -> None:
    """DataError unless the folder, which is of the run's layout, has the images and labels of the run's splits; in the fully
    supervised mode in VOC layout, the masks of the training images too. No mask is opened."""
    names, split = class_set(run, data).class_names, run.dataset.train_split
    LAYOUTS[run.dataset.layout].check_splits(data, run.dataset, names)
    if run.train.supervision == "masks" and run.dataset.layout == "voc":
        ids = [image for image in read_split(data, split, names) if image_file(data, image)]
        require_masks(voc_mask_reader(data, split, names), split, ids[: run.dataset.max_images])


def _check_supervision(run: RunSpec) -> None:
    """SettingError for settings that cannot be mixed with training on true masks."""
    if run.train.supervision == "masks" and run.evaluate.ablation:
        raise SettingError(
            "train.supervision=masks: the ablation is about image-level labels, and would mix the two; add "
            "--set evaluate.ablation=false"
        )


def _check_own_classes(run: RunSpec, data: Path | None) -> None:
    """Classes that the data folder tells, and who describes them."""
    class_set(run, data)
    if run.describe.provider != "openai":
        written_descriptions(run, data)


def _check_gpus(run: RunSpec, device: str, gpus: int) -> None:
    if not 1 <= gpus <= MOST_GPUS:
        raise SettingError(f"--gpus {gpus}: expected 1 to {MOST_GPUS}")
    if gpus > 1 and device == "mps":
        raise SettingError(f"--gpus {gpus}: --device mps trains in one process; use --gpus 1")
    if device == "cuda" and gpus > torch.cuda.device_count():
        raise SettingError(f"--gpus {gpus}: this machine has {torch.cuda.device_count()}; use at most that many")
    ProcessGroup(world=gpus).share(run.train.batch_size)
