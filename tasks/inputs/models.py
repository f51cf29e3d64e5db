"""The models of a job: the frozen CLIP and the knowledge base, loaded once per process; the trained segmenter."""

from functools import lru_cache
from pathlib import Path

from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec
from excel_core.models.checkpoints import Architecture, load_segmenter
from excel_core.models.clip_weights import load_clip
from excel_core.models.dino import FrozenDino
from excel_core.models.dino_weights import load_dino
from excel_core.models.segmenter import Segmenter
from excel_core.stores import read_knowledge
from excel_core.text.embeddings import TextEmbeddings
from excel_core.text.knowledge import KnowledgeBase
from tasks.engine.fingerprint import clip_fingerprint, digest_of, dino_fingerprint
from tasks.engine.stage import Job, RunEnvironment

__all__ = [
    "architecture", "cached_clip", "classes_of", "load_cam_model", "load_knowledge", "load_trained", "model_key",
    "second_encoder", "text_embeddings", "text_embeddings_of",
]  # fmt: skip

cached_clip = lru_cache(maxsize=2)(load_clip)
cached_dino = lru_cache(maxsize=2)(load_dino)


def load_knowledge(job: Job) -> KnowledgeBase:
    """The knowledge stage's output."""
    return _knowledge(job.folder("knowledge") / "knowledge.zarr", job.inputs["knowledge"].content)


@lru_cache(maxsize=8)
def _knowledge(path: Path, content: str) -> KnowledgeBase:
    """`content` is there for the cache alone."""
    return read_knowledge(path)


def classes_of(job: Job) -> tuple[str, ...]:
    """Class names in class order."""
    return load_knowledge(job).class_names


def load_cam_model(job: Job) -> CamModel:
    """The run's CLIP with the run's texts, which are encoded already, and its second encoder, if it has one."""
    clip = cached_clip(job.run.clip.model, job.environment.device)
    clip.park_text_tower()
    store = load_knowledge(job)
    dino = second_encoder(job.run, job.environment.device)
    return CamModel.of(clip, store.knowledge.text.to(clip.device), len(store.class_names), job.run.cams, dino)


def second_encoder(run: RunSpec, device: str) -> FrozenDino | None:
    """The run's DINO, or None."""
    return None if run.dino.model is None else cached_dino(run.dino.model, device)


def model_key(job: Job) -> str:
    """Digest of what CAMs are made of, but for their settings: the CLIP, class names, T_c and background texts, and the second
    encoder where it makes CAMs. A change of descriptions that leaves these alone changes no CAM."""
    store = load_knowledge(job)
    text = store.knowledge.text.contiguous().numpy()
    clip = clip_fingerprint(job.run.clip.model)
    proxy = [dino_fingerprint(job.run.dino.model)] if job.run.cams.calibration.attention == "proxy" else []
    return digest_of([clip, store.class_names, list(text.shape), text.tobytes().hex(), *proxy])


def architecture(job: Job, cam_model: CamModel) -> Architecture:
    """The architecture that this run trains."""
    return Architecture.of(cam_model.clip, classes_of(job), job.run.train.segmenter, cam_model.dino)


def load_trained(job: Job, cam_model: CamModel) -> Segmenter:
    """The train stage's segmenter on the run's device, in evaluation mode."""
    path = job.folder("train") / "segmenter.safetensors"
    return load_segmenter(path, architecture(job, cam_model)).to(cam_model.clip.device)


def text_embeddings(run: RunSpec, environment: RunEnvironment) -> TextEmbeddings:
    """The store's text embeddings of the run's CLIP on this device."""
    return text_embeddings_of(environment.store, clip_fingerprint(run.clip.model), environment.device)


def text_embeddings_of(store: Path, clip: str, device: str) -> TextEmbeddings:
    """The store's text embeddings of the CLIP with this fingerprint on a device."""
    return TextEmbeddings(store / "texts" / digest_of([clip, device])[:32])
