"""Stage `knowledge`: templates, background prompts and descriptions → text embeddings, attributes, T_c in knowledge.zarr."""

from pathlib import Path
from typing import Any

from torch import Tensor

from excel_core.config import RunSpec
from excel_core.files import read_json
from excel_core.stores import KnowledgeStore, write_knowledge
from excel_core.text.attributes_file import load_attributes
from excel_core.text.descriptions import Descriptions
from excel_core.text.given_descriptions import load_given
from excel_core.text.knowledge import build_knowledge
from excel_core.text.prompts import ClassPrompt, PromptSet
from tasks.engine.fingerprint import clip_fingerprint, files_fingerprint
from tasks.engine.stage import RunEnvironment, Stage, Work
from tasks.inputs.cam_model import cached_clip, text_embeddings

__all__ = ["STAGE", "knowledge_base", "prompt_set", "ready_attributes"]


def build_knowledge_base(work: Work) -> dict[str, Any]:
    """Encode every text that was not encoded before, and cluster the descriptions, or take ready attributes."""
    prompts = prompt_set(read_json(work.input("describe") / "prompts.json"))
    # `describe` has checked their form, as far as it has rules: a user's own file may have any.
    described = load_given(work.input("describe") / "descriptions.json").described(prompts, work.run.describe.n)
    store = knowledge_base(prompts, described, work.run, work.place)
    write_knowledge(work.folder / "knowledge.zarr", store)
    found = store.knowledge
    file = _attributes_file(work.run)
    source = {"attributes_file": file.name} if file else {}
    return {"texts": len(store.texts) + len(found.text), "attributes": len(found.attributes)} | source


def knowledge_base(prompts: PromptSet, described: Descriptions, run: RunSpec, place: RunEnvironment) -> KnowledgeStore:
    """The knowledge base of a class set and its descriptions, as many of each class."""
    texts = tuple(text for name in prompts.class_names for text in described.texts[name])
    clip = cached_clip(run.clip.model, place.device)
    embeddings = text_embeddings(run, place)
    templates, background, descriptions = (
        embeddings.encode(clip, found) for found in (prompts.templates(), prompts.background_templates(), list(texts))
    )
    knowledge = build_knowledge(templates, background, descriptions, run.knowledge, ready_attributes(run, templates.shape[1]))
    return KnowledgeStore(knowledge, prompts.class_names, prompts.background, texts)


def prompt_set(values: dict[str, Any]) -> PromptSet:
    """The class set that prompts.json holds."""
    classes = tuple(ClassPrompt(**entry) for entry in values["classes"])
    return PromptSet(values["name"], values["template"], classes, tuple(values["background"]))


def ready_attributes(run: RunSpec, width: int) -> Tensor | None:
    """Attributes (A, D) of the run's file, D = `width`; None where k-means makes them, or there are none. SettingError for a
    file that cannot be used."""
    file = _attributes_file(run)
    return load_attributes(file, width) if file else None


def _attributes_file(run: RunSpec) -> Path | None:
    """The file, where the mode uses it."""
    spec = run.knowledge
    return Path(spec.attributes_file) if spec.attributes_file and spec.mode == "attributes" else None


def _spec(run: RunSpec) -> dict[str, Any]:
    """With a file of attributes, without the settings of k-means."""
    file = _attributes_file(run)
    if file is None:
        return run.knowledge.model_dump(mode="json", exclude={"attributes_file"})
    spec = run.knowledge.model_dump(mode="json", exclude={"attributes_file", "attributes", "n_init", "seed"})
    return spec | {"attributes": f"of {file}"}


def _outside(run: RunSpec, place: RunEnvironment) -> dict[str, Any]:
    outside: dict[str, Any] = {"clip": clip_fingerprint(run, place)}
    file = _attributes_file(run)
    if file is None:
        return outside
    # Reading a missing file will say what to do.
    return outside | {"attributes": files_fingerprint(file) if file.is_file() else "missing"}


STAGE = Stage("knowledge", ("describe",), _spec, build_knowledge_base, outside=_outside, on_device=True)
