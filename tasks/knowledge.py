"""Stage `knowledge`: templates, background prompts and descriptions → text embeddings, attributes, T_c in knowledge.zarr."""

from typing import Any

from excel_core.config import RunSpec
from excel_core.descriptions.files import Descriptions, load_descriptions
from excel_core.knowledge import build_knowledge
from excel_core.prompts import ClassPrompt, PromptSet
from excel_core.stores import KnowledgeStore, read_json, write_knowledge
from tasks.engine.fingerprint import clip_fingerprint
from tasks.engine.stage import Place, Stage, Work
from tasks.inputs.text_embeddings import TextEmbeddings
from tasks.inputs.vision import cached_clip

__all__ = ["STAGE", "knowledge_base", "prompt_set"]


def build_knowledge_base(work: Work) -> dict[str, Any]:
    """Encode every text that was not encoded before, and cluster the descriptions."""
    prompts = prompt_set(read_json(work.input("describe") / "prompts.json"))
    described = load_descriptions(work.input("describe") / "descriptions.json", prompts, work.run.describe.n)
    store = knowledge_base(prompts, described, work.run, work.place)
    write_knowledge(work.folder / "knowledge.zarr", store)
    found = store.knowledge
    return {"texts": len(store.texts) + len(found.text), "attributes": len(found.attributes)}


def knowledge_base(prompts: PromptSet, described: Descriptions, run: RunSpec, place: Place) -> KnowledgeStore:
    """The knowledge base of a class set and its descriptions, as many of each class."""
    texts = tuple(text for name in prompts.class_names for text in described.texts[name])
    clip = cached_clip(run.clip.model, place.device)
    embeddings = TextEmbeddings(place.store, clip_fingerprint(run, place), place.device)
    templates, background, descriptions = (
        embeddings.encode(clip, found) for found in (prompts.templates(), prompts.background_templates(), list(texts))
    )
    knowledge = build_knowledge(templates, background, descriptions, run.knowledge)
    return KnowledgeStore(knowledge, prompts.class_names, prompts.background, texts)


def prompt_set(values: dict[str, Any]) -> PromptSet:
    """The class set that prompts.json holds."""
    classes = tuple(ClassPrompt(**entry) for entry in values["classes"])
    return PromptSet(values["name"], values["template"], classes, tuple(values["background"]))


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.knowledge.model_dump(mode="json")


STAGE = Stage("knowledge", ("describe",), _spec, build_knowledge_base, outside=clip_fingerprint, on_device=True)
