"""Stage `knowledge`: templates, background prompts and descriptions → text embeddings, attributes, T_c in knowledge.zarr."""

from typing import Any

from excel_core.config import RunSpec
from excel_core.knowledge import build_knowledge
from excel_core.stores import KnowledgeStore, read_json, write_knowledge
from tasks.fingerprint import clip_fingerprint
from tasks.stage import Stage, Work
from tasks.vision import cached_clip

__all__ = ["STAGE"]


def build_knowledge_base(work: Work) -> dict[str, Any]:
    """Encode every text once and cluster the descriptions."""
    described = read_json(work.input("describe") / "descriptions.json")
    prompts, classes = described["prompts"], described["classes"]
    names = tuple(entry["name"] for entry in prompts["classes"])
    template = prompts["template"]
    texts = tuple(text for name in names for text in classes[name])
    clip = cached_clip(work.run.clip.model, work.place.device)
    templates = clip.encode_texts([template.format(entry["synonyms"]) for entry in prompts["classes"]])
    background = clip.encode_texts([template.format(text) for text in prompts["background"]])
    knowledge = build_knowledge(templates, background, clip.encode_texts(list(texts)), work.run.knowledge)
    write_knowledge(work.folder / "knowledge.zarr", KnowledgeStore(knowledge, names, tuple(prompts["background"]), texts))
    return {"texts": len(texts) + len(knowledge.text), "attributes": len(knowledge.attributes)}


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.knowledge.model_dump(mode="json")


STAGE = Stage("knowledge", ("describe",), _spec, build_knowledge_base, outside=clip_fingerprint)
