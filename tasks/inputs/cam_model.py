"""Load what the image stages look through, once a process: the frozen CLIP and the knowledge's texts."""

from functools import lru_cache
from pathlib import Path

from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec
from excel_core.models.clip import FrozenClip
from excel_core.models.clip_weights import load_clip
from excel_core.stores import KnowledgeStore, read_knowledge
from excel_core.text.embeddings import TextEmbeddings
from tasks.engine.fingerprint import clip_fingerprint
from tasks.engine.identity import digest_of
from tasks.engine.stage import RunEnvironment, Work

__all__ = ["cached_clip", "classes_of", "load_cam_model", "load_knowledge", "model_key", "text_embeddings"]

cached_clip = lru_cache(maxsize=2)(load_clip)


def load_knowledge(work: Work) -> KnowledgeStore:
    """The knowledge stage's output."""
    return _knowledge(work.input("knowledge") / "knowledge.zarr", work.inputs["knowledge"].content)


@lru_cache(maxsize=8)
def _knowledge(path: Path, content: str) -> KnowledgeStore:
    """`content` is there for the cache alone."""
    return read_knowledge(path)


def load_cam_model(work: Work) -> CamModel:
    """The run's CLIP with the run's texts."""
    clip: FrozenClip = cached_clip(work.run.clip.model, work.place.device)
    store = load_knowledge(work)
    return CamModel(clip, store.knowledge.text.to(clip.device), len(store.class_names), work.run.cams)


def model_key(work: Work) -> str:
    """Digest of what `load_cam_model` loads but for the CAM spec: the CLIP, class names, T_c and background texts. A change of
    descriptions that leaves these alone changes no CAM."""
    store = load_knowledge(work)
    text = store.knowledge.text.contiguous().numpy()
    return digest_of([clip_fingerprint(work.run, work.place), store.class_names, list(text.shape), text.tobytes().hex()])


def classes_of(work: Work) -> tuple[str, ...]:
    """Class names in class order."""
    return load_knowledge(work).class_names


def text_embeddings(run: RunSpec, environment: RunEnvironment) -> TextEmbeddings:
    """The store's text embeddings of the run's CLIP on this device."""
    encoder = digest_of([clip_fingerprint(run, environment), environment.device])
    return TextEmbeddings(environment.store / "texts" / encoder[:32])
