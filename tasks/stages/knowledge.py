"""Stage `knowledge`: templates, background prompts and descriptions → text embeddings, attributes, T_c in knowledge.zarr."""

from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.files import read_json
from excel_core.stores import write_knowledge
from excel_core.text.attributes_file import used_attributes_file
from excel_core.text.descriptions import Descriptions
from excel_core.text.knowledge import KnowledgeBase, build_knowledge_base
from excel_core.text.prompts import PromptSet
from excel_core.text.user_descriptions import load_user_descriptions
from tasks.engine.fingerprint import clip_fingerprint, files_fingerprint
from tasks.engine.output import StageResult
from tasks.engine.stage import Job, RunEnvironment
from tasks.inputs.models import cached_clip, text_embeddings

__all__ = ["KnowledgeResult", "knowledge_base", "make_knowledge", "outside", "settings"]

KMEANS = {"attributes", "n_init", "seed"}


class KnowledgeResult(StageResult):
    """Texts encoded, attributes, and the file that these come from, where k-means did not make them."""

    texts: int
    attributes: int
    attributes_file: str | None = None


def make_knowledge(job: Job, folder: Path) -> KnowledgeResult:
    """Encode every text that was not encoded before, and cluster the descriptions, or take ready attributes."""
    run, described = job.run, job.folder("describe")
    prompts = PromptSet.from_dict(read_json(described / "prompts.json"))
    if run.describe.provider == "none":
        descriptions = Descriptions({}, {})
    else:
        # `describe` has checked their form, as far as it has rules: a user's own file may have any.
        descriptions = load_user_descriptions(described / "descriptions.json").select(prompts, run.describe.n)
    base = knowledge_base(prompts, descriptions, run, job.environment)
    write_knowledge(folder / "knowledge.zarr", base)
    file = used_attributes_file(run.knowledge)
    return KnowledgeResult(
        texts=len(base.texts) + len(base.knowledge.text),
        attributes=len(base.knowledge.attributes),
        attributes_file=file.name if file else None,
    )


def knowledge_base(prompts: PromptSet, descriptions: Descriptions, run: RunSpec, environment: RunEnvironment) -> KnowledgeBase:
    """The knowledge base of a class set and its descriptions, as many of each class."""
    texts = descriptions.in_class_order(prompts.class_names)
    clip = cached_clip(run.clip.model, environment.device)
    return build_knowledge_base(prompts, texts, run.knowledge, clip, text_embeddings(run, environment))


def settings(run: RunSpec) -> dict[str, Any]:
    """With a file of attributes, without the settings of k-means."""
    file = used_attributes_file(run.knowledge)
    if file is None:
        return run.knowledge.model_dump(mode="json", exclude={"attributes_file"})
    fields = run.knowledge.model_dump(mode="json", exclude={"attributes_file"} | KMEANS)
    return fields | {"attributes": f"of {file}"}


def outside(run: RunSpec, environment: RunEnvironment) -> dict[str, Any]:
    """The CLIP, and the file of attributes."""
    file = used_attributes_file(run.knowledge)
    attributes = {"attributes": files_fingerprint(file)} if file else {}
    return {"clip": clip_fingerprint(run.clip.model)} | attributes
