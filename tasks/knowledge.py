"""Stage `knowledge`: templates, background prompts and descriptions → text embeddings, attributes, T_c in knowledge.zarr."""

from typing import Any

from excel_core.config import RunSpec
from excel_core.knowledge import build_knowledge
from excel_core.prompts import ClassPrompt, PromptSet
from excel_core.stores import KnowledgeStore, read_json, write_knowledge
from tasks.fingerprint import clip_fingerprint
from tasks.stage import Stage, Work
from tasks.text_embeddings import TextEmbeddings
from tasks.vision import cached_clip

__all__ = ["STAGE"]


def build_knowledge_base(work: Work) -> dict[str, Any]:
    """Encode every text that was not encoded before, and cluster the descriptions."""
    described = read_json(work.input("describe") / "descriptions.json")
    prompts = _prompt_set(described["prompts"])
    texts = tuple(text for name in prompts.class_names for text in described["classes"][name])
    clip = cached_clip(work.run.clip.model, work.place.device)
    embeddings = TextEmbeddings(work.place.store, clip_fingerprint(work.run, work.place), work.place.device)
    templates, background, descriptions = (
        embeddings.encode(clip, found) for found in (prompts.templates(), prompts.background_templates(), list(texts))
    )
    knowledge = build_knowledge(templates, background, descriptions, work.run.knowledge)
    write_knowledge(work.folder / "knowledge.zarr", KnowledgeStore(knowledge, prompts.class_names, prompts.background, texts))
    return {"texts": len(texts) + len(knowledge.text), "attributes": len(knowledge.attributes)}


def _prompt_set(values: dict[str, Any]) -> PromptSet:
    classes = tuple(ClassPrompt(**entry) for entry in values["classes"])
    return PromptSet(values["name"], values["template"], classes, tuple(values["background"]))


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.knowledge.model_dump(mode="json")


STAGE = Stage("knowledge", ("describe",), _spec, build_knowledge_base, outside=clip_fingerprint, on_device=True)
