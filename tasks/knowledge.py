"""Stage `knowledge`: templates, background prompts and descriptions → text embeddings, attributes, T_c in knowledge.zarr."""

from typing import Any

from excel_core.config import RunSpec
from excel_core.files import read_json
from excel_core.stores import write_knowledge
from excel_core.text.attributes_file import used_attributes_file
from excel_core.text.descriptions import Descriptions
from excel_core.text.given_descriptions import load_given
from excel_core.text.knowledge import KnowledgeBase, build_knowledge_base
from excel_core.text.prompts import PromptSet
from tasks.engine.fingerprint import clip_fingerprint, files_fingerprint
from tasks.engine.stage import RunEnvironment, Stage, Work
from tasks.inputs.cam_model import cached_clip, text_embeddings

__all__ = ["STAGE", "knowledge_base"]


def make_knowledge(work: Work) -> dict[str, Any]:
    """Encode every text that was not encoded before, and cluster the descriptions, or take ready attributes."""
    prompts = PromptSet.from_dict(read_json(work.input("describe") / "prompts.json"))
    # `describe` has checked their form, as far as it has rules: a user's own file may have any.
    described = load_given(work.input("describe") / "descriptions.json").described(prompts, work.run.describe.n)
    base = knowledge_base(prompts, described, work.run, work.place)
    write_knowledge(work.folder / "knowledge.zarr", base)
    file = used_attributes_file(work.run.knowledge)
    source = {"attributes_file": file.name} if file else {}
    return {"texts": len(base.texts) + len(base.knowledge.text), "attributes": len(base.knowledge.attributes)} | source


def knowledge_base(prompts: PromptSet, described: Descriptions, run: RunSpec, place: RunEnvironment) -> KnowledgeBase:
    """The knowledge base of a class set and its descriptions, as many of each class."""
    texts = described.in_class_order(prompts.class_names)
    clip = cached_clip(run.clip.model, place.device)
    return build_knowledge_base(prompts, texts, run.knowledge, clip, text_embeddings(run, place))


def _spec(run: RunSpec) -> dict[str, Any]:
    """With a file of attributes, without the settings of k-means."""
    file = used_attributes_file(run.knowledge)
    if file is None:
        return run.knowledge.model_dump(mode="json", exclude={"attributes_file"})
    spec = run.knowledge.model_dump(mode="json", exclude={"attributes_file", "attributes", "n_init", "seed"})
    return spec | {"attributes": f"of {file}"}


def _outside(run: RunSpec, place: RunEnvironment) -> dict[str, Any]:
    outside: dict[str, Any] = {"clip": clip_fingerprint(run, place)}
    file = used_attributes_file(run.knowledge)
    if file is None:
        return outside
    # Reading a missing file will say what to do.
    return outside | {"attributes": files_fingerprint(file) if file.is_file() else "missing"}


STAGE = Stage("knowledge", ("describe",), _spec, make_knowledge, outside=_outside, on_device=True)
