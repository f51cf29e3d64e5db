"""From a request to a run and its environment. Anything wrong is refused here, before work starts. Knows no Prefect."""

import os
from pathlib import Path

import torch

from excel_core.config import RunSpec
from excel_core.config.presets import preset, with_edits, with_settings
from excel_core.datasets.layouts import LAYOUTS, check_links
from excel_core.datasets.masks import require_masks, voc_mask_reader
from excel_core.datasets.photo_headers import check_photo_headers
from excel_core.datasets.voc import image_file, read_split
from excel_core.distributed import ProcessGroup
from excel_core.errors import SettingError, shown
from excel_core.models.clip_names import check_settings_fit_clip, clip_sizes, parse_clip_name
from excel_core.models.clip_weights import check_clip_file
from excel_core.models.dino_names import check_dino_settings
from excel_core.models.dino_weights import load_dino
from excel_core.models.mask_proposer import check_proposer
from excel_core.text.ask_class import instruction_of
from excel_core.text.attributes_file import load_attributes
from excel_core.text.class_sets import (
    DATA_CLASSES,
    class_set,
    prompts_file,
    user_descriptions,
    written_descriptions,
)
from excel_core.text.key_transport import require_encrypted_hub
from flows.local.state import store_folder
from flows.method_settings import check_clip_fits_method, check_method_settings
from flows.request import DataRequest, Request, RunRequest
from flows.store_access import check_store_access
from tasks.engine.object_store import remote_url, user_cache
from tasks.engine.stage import RunEnvironment
from tasks.inputs.given_segmenter import check_checkpoint_settings, check_given_segmenter
from tasks.stages.dataset import check_layout

__all__ = [
    "check_data", "check_run", "environment_to_look", "environment_without_data", "run_environment", "run_spec",
    "with_requests_edits",
]  # fmt: skip


def run_spec(request: RunRequest) -> RunSpec:
    """The preset under the method, then `edits`, then `settings`, then `clip`. Raises for anything wrong in it."""
    run = with_requests_edits(preset(request.preset, request.method), request, request.settings)
    check_run(run)
    return run


def with_requests_edits(run: RunSpec, request: DataRequest, settings: list[str]) -> RunSpec:
    """`run` with the request's `edits`, then these settings, then its `clip`."""
    clip = [f"clip.model={request.clip}"] if request.clip else []
    return with_settings(with_edits(run, request.edits or {}), settings + clip)


def check_run(run: RunSpec) -> None:
    """Raises for anything wrong in a run, as far as it shows without the data folder."""
    check_settings_fit_clip(run)
    _check_hub(run)
    check_dino_settings(run)
    check_method_settings(run)
    _check_supervision(run)
    check_layout(run.dataset)
    check_checkpoint_settings(run)
    if run.dataset.prompts != DATA_CLASSES:  # else the data folder tells, which is not known here
        prompts_file(run.dataset.prompts)
    _check_descriptions(run)
    _check_attributes(run)
    _check_votes(run)


def run_environment(run: RunSpec, request: DataRequest) -> RunEnvironment:
    """Where `run` happens, with absolute paths. Raises for a missing or unfit data folder, for a device or GPUs that are not
    there, for weights of another architecture, and for a checkpoint of other classes or another CLIP; it reads them all."""
    environment = environment_without_data(request)
    check_store_access(environment.store)
    _check_gpus(run, request.device, request.gpus)
    data = _data_folder(run, request.data)
    if run.dataset.prompts == DATA_CLASSES:
        class_set(run, data)
        if run.describe.provider != "openai":
            written_descriptions(run, data)
    if data is not None:
        check_data(run, data)
    _check_weights(run)
    check_clip_fits_method(run, request.device)
    check_given_segmenter(run, data, request.device)
    return environment.model_copy(update={"data": data, "processes": request.gpus})


def _check_weights(run: RunSpec) -> None:
    """ModelError for files of weights that are of another architecture: `describe` may cost money before they are needed."""
    check_clip_file(run.clip.model)
    for name in {run.dino.model, run.ablation.second_encoder}:
        if name is not None:
            load_dino(name)


def environment_without_data(request: Request) -> RunEnvironment:
    """Store and device, for work that needs no data folder. SettingError for a device that is not there."""
    if request.device == "cuda" and not torch.cuda.is_available():
        raise SettingError("--device cuda: this PyTorch sees no CUDA device; use --device cpu")
    if request.device == "mps" and not torch.backends.mps.is_available():
        raise SettingError("--device mps: this PyTorch sees no MPS device; use --device cpu")
    store = store_folder(request.store)
    return RunEnvironment(store=store, remote=remote_url(store), device=request.device)


def environment_to_look(request: Request) -> RunEnvironment:
    """Store and device of a command that looks at something and keeps nothing but text embeddings. Where nobody named a store
    and there is none in the current folder, none is made there: the embeddings go to the user's cache."""
    environment = environment_without_data(request)
    is_named = request.store is not None or bool(os.environ.get("EXCEL_STORE"))
    return environment if is_named or environment.store.is_dir() else environment.model_copy(update={"store": user_cache()})


def check_data(run: RunSpec, data: Path) -> None:
    """DataError unless the folder, which is of the run's layout, has the images and labels of the run's splits; in the fully
    supervised mode in VOC layout, the masks of the training images too. No mask is opened."""
    names, split = class_set(run, data).class_names, run.dataset.train_split
    LAYOUTS[run.dataset.layout].check_splits(data, run.dataset, names)
    if run.dataset.layout == "folder":
        check_photo_headers(data, run.dataset, names)
    if run.train.supervision == "masks" and run.dataset.layout == "voc":
        ids = [image for image in read_split(data, split, names) if image_file(data, image)]
        require_masks(voc_mask_reader(data, split, names), split, ids[: run.dataset.max_images])


def _data_folder(run: RunSpec, data: str | None) -> Path | None:
    """The folder, absolute and of the run's layout; None for the built-in world, which needs none."""
    if run.dataset.layout == "world":
        return None
    if data is None:
        raise SettingError(f"preset {run.preset!r} needs a data folder: pass --data DIR")
    if not Path(data).is_dir():
        what = "is a file; name the folder that it is in" if Path(data).is_file() else "does not exist"
        raise SettingError(f"data folder {data!r} {what}")
    folder = Path(data).resolve()
    check_links(folder, run.dataset.layout)
    LAYOUTS[run.dataset.layout].check(folder)
    return folder


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
        user_descriptions(spec)
        if prompts != DATA_CLASSES:
            written_descriptions(run, None)
    elif prompts != DATA_CLASSES:
        written_descriptions(run, None)


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


def _check_votes(run: RunSpec) -> None:
    """SettingError for mask votes without a source of masks, or on label maps that are not made."""
    refine, votes = run.refine, run.refine.votes
    if not votes.enabled:
        return
    if votes.of == "crf" and not refine.crf.enabled:
        raise SettingError("refine.votes.of=crf: there is no CRF (refine.crf.enabled=false); set refine.votes.of=par")
    if votes.masks is None:
        check_proposer()
        return
    folder = Path(votes.masks)
    if not folder.is_dir():
        raise SettingError(f"refine.votes.masks={shown(votes.masks)}: no such folder; expected one with ID.json for each image")
    if next(folder.glob("*.json"), None) is None:
        raise SettingError(f"refine.votes.masks={shown(votes.masks)}: holds no ID.json with the masks of an image")


def _check_hub(run: RunSpec) -> None:
    """SettingError where weights may come from a hub to which the user's token would go unencrypted."""
    votes = run.refine.votes
    if parse_clip_name(run.clip.model).tag is not None or (votes.enabled and votes.masks is None):
        require_encrypted_hub()


def _check_supervision(run: RunSpec) -> None:
    """SettingError for settings that cannot be mixed with training on true masks."""
    if run.train.supervision == "masks" and run.evaluate.ablation:
        raise SettingError(
            "train.supervision=masks: the ablation is about image-level labels, and would mix the two; add "
            "--set evaluate.ablation=false"
        )


def _check_gpus(run: RunSpec, device: str, gpus: int) -> None:
    if gpus > 1 and device == "mps":
        raise SettingError(f"--gpus {gpus}: --device mps trains in one process; use --gpus 1")
    if device == "cuda" and gpus > torch.cuda.device_count():
        raise SettingError(f"--gpus {gpus}: this machine has {torch.cuda.device_count()}; use at most that many")
    ProcessGroup(world_size=gpus).share(run.train.batch_size)
