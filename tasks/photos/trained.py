"""The models that segment single photos: a frozen CLIP with class names, a finished run's segmenter, an exported file, a
published checkpoint."""

from pathlib import Path

from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec
from excel_core.errors import ModelError, StoreError
from excel_core.models.checkpoints import Architecture, load_segmenter
from excel_core.models.published_checkpoint import is_published, read_published
from excel_core.prediction.predictors import Predictor, published_run, published_trained_segmenter, training_free_predictor
from excel_core.prediction.trained_segmenter import TrainedSegmenter, load_portable
from excel_core.stores import read_knowledge
from tasks.engine.fingerprint import clip_fingerprint, dino_fingerprint
from tasks.engine.output import StageOutput, read_marker, read_output
from tasks.engine.progress import say
from tasks.engine.stage import RunEnvironment
from tasks.history.find_run import find_record
from tasks.history.run_record import RunRecord
from tasks.inputs.models import cached_clip, second_encoder, text_embeddings

__all__ = ["class_names", "committed_output", "find_segmenter", "published_trained", "run_segmenter", "training_free"]


def training_free(names: tuple[str, ...], run: RunSpec, environment: RunEnvironment) -> Predictor:
    """`training_free_predictor` with the environment's CLIP and the store's text embeddings."""
    clip = cached_clip(run.clip.model, environment.device)
    return training_free_predictor(names, run, clip, text_embeddings(run, environment))


def find_segmenter(weights: str, store: Path, device: str, clip: str | None = None) -> TrainedSegmenter:
    """`weights`: a file of `excel export --format safetensors`, a checkpoint of the published code, or else a run of the store.
    `clip` names the CLIP of a checkpoint."""
    path = Path(weights)
    if is_published(path):
        return published_trained(path, device, clip)
    if path.suffix == ".safetensors" or path.is_file():
        return load_portable(path, device)
    return run_segmenter(find_record(store, weights, ["train", "knowledge"]), device)


def published_trained(path: Path, device: str, clip_name: str | None) -> TrainedSegmenter:
    """The segmenter of a published checkpoint. Says what it computes otherwise than the code that trained it."""
    checkpoint = read_published(path)
    run, names = published_run(checkpoint, clip_name)
    clip = cached_clip(run.clip.model, device)
    trained = published_trained_segmenter(checkpoint, names, run, clip)
    for difference in checkpoint.differences(clip, run.cams):
        say(f"{path.name}: trained otherwise: {difference}")
    return trained


def committed_output(record: RunRecord, stage: str) -> StageOutput:
    """A stage's output, every file there; SettingError where the run has none, StoreError where it is gone or damaged."""
    output = read_output(record.output(stage))
    if output is None:
        raise StoreError(f"run {record.id}: its {stage} in {record.output(stage)} is missing or damaged; run it again")
    return output


def class_names(record: RunRecord) -> tuple[str, ...]:
    """The run's class names in class order."""
    return read_knowledge(committed_output(record, "knowledge").folder / "knowledge.zarr").class_names


def run_segmenter(record: RunRecord, device: str) -> TrainedSegmenter:
    """The segmenter that the run trained, on `device`. ModelError where the weights of its CLIP, or of its
    second encoder, are no longer the same."""
    run = record.run
    weights = committed_output(record, "train").folder / "segmenter.safetensors"
    knowledge = read_knowledge(committed_output(record, "knowledge").folder / "knowledge.zarr")
    _check_encoders(record)
    clip = cached_clip(run.clip.model, device)
    names = knowledge.class_names
    dino = second_encoder(run, device)
    cam_model = CamModel.of(clip, knowledge.knowledge.text.to(clip.device), len(names), run.cams, dino)
    segmenter = load_segmenter(weights, Architecture.of(clip, names, run.train.segmenter, cam_model.dino)).to(clip.device)
    return TrainedSegmenter.of(cam_model, segmenter, names, run)


def _check_encoders(record: RunRecord) -> None:
    """A file that has changed since would be another encoder under this run's head."""
    _check_clip(record)
    name = record.run.dino.model
    if name is not None:
        used = read_marker(record.output("train")).origin.key_parts["inputs"]["dino"]
        if dino_fingerprint(name) != used:
            raise ModelError(f"{name}: these weights are no longer those that run {record.id} used; run it again")


def _check_clip(record: RunRecord) -> None:
    used = read_marker(record.output("knowledge")).origin.key_parts["outside"]["clip"]
    if clip_fingerprint(record.run.clip.model) != used:
        raise ModelError(f"{record.run.clip.model}: these weights are no longer those that run {record.id} used; run it again")
