"""Stage `describe`: n descriptions per class, from a file or a language model; one part per class.

descriptions.json   excel-descriptions/1 (excel_core/text/descriptions.py): to copy, edit, and use as a bundled file
prompts.json        the class set that they belong to
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.files import read_json, write_json
from excel_core.text.ask_class import LlmCost, ask_class, asked_provenance, instruction_of
from excel_core.text.class_sets import class_set, user_descriptions, written_descriptions
from excel_core.text.descriptions import Descriptions
from excel_core.text.prompts import ClassPrompt, PromptSet
from tasks.engine.code_digest import result_in_key
from tasks.engine.fingerprint import digest_of
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part, RunEnvironment
from tasks.inputs.api_key import api_key

__all__ = ["ClassResult", "DescribeResult", "class_parts", "describe_class", "join_classes", "outside", "settings"]

# What the texts depend on, and nothing else: neither how fast a model is asked nor what it costs.
SETTINGS = {
    "bundled": ("provider", "n"),
    "file": ("provider", "n"),  # the texts are in the keys of the parts, so the file may lie anywhere
    "none": ("provider",),
    "openai": ("provider", "n", "model", "base_url", "structured", "temperature"),
}


class ClassResult(StageResult):
    """How many descriptions of a class there are, and what a language model took for them."""

    descriptions: int
    cost: LlmCost | None = None


class DescribeResult(StageResult):
    """Classes and descriptions in all; the costs added up; the user's file and the classes in it that the run does not use."""

    classes: int
    descriptions: int
    cost: LlmCost | None = None
    file: str | None = None
    unused: tuple[str, ...] | None = None


def class_parts(job: Job) -> list[Part]:
    """A part depends on its class's own texts where they are written already, else on what the request says of its class. It
    depends on no synonym and no other class, although a request names them: if one class changes, that one is asked for."""
    prompts, n = _prompts(job), 0 if job.run.describe.provider == "none" else job.run.describe.n
    shared = {"spec": settings(job.run), "template": prompts.template}
    return [Part(entry.name, n, shared | {"class": entry.name} | _class_key(job, entry)) for entry in prompts.classes]


def _class_key(job: Job, entry: ClassPrompt) -> dict[str, Any]:
    if _asks(job.run):
        return {"about": entry.about, "instruction": digest_of(instruction_of(job.run.describe).template)}
    written = _written(job)
    provenance = written.provenance | written.class_provenance.get(entry.name, {})
    return {"provenance": provenance, "texts": digest_of(written.texts[entry.name])}


def describe_class(job: Job, part: Part, folder: Path) -> ClassResult:
    """Get one class's descriptions and write them."""
    cost = None
    if _asks(job.run):
        answer = ask_class(job.run.describe, _prompts(job), part.name, api_key(job.run.describe))
        texts, provenance, cost = answer.texts, answer.provenance, answer.cost
    else:
        written = _written(job)
        texts, provenance = written.texts[part.name], written.class_provenance.get(part.name, {})
    write_json(folder / "descriptions.json", {"texts": list(track(texts)), "provenance": provenance})
    return ClassResult(descriptions=len(texts), cost=cost)


def join_classes(job: Job, parts: dict[str, StageOutput], folder: Path) -> DescribeResult:
    """All classes in one file, and beside it the class set that they belong to."""
    prompts, run = _prompts(job), job.run
    described = {name: read_json(parts[name].folder / "descriptions.json") for name in prompts.class_names}
    descriptions = Descriptions(
        texts={name: tuple(content["texts"]) for name, content in described.items()},
        provenance=asked_provenance(run.describe) if _asks(run) else _written(job).provenance,
        class_provenance={name: content["provenance"] for name, content in described.items() if content["provenance"]},
    )
    write_json(folder / "descriptions.json", descriptions.document())
    write_json(folder / "prompts.json", asdict(prompts))
    costs = [part.result_as(ClassResult).cost for part in parts.values()]
    result = DescribeResult(
        classes=len(described),
        descriptions=sum(map(len, descriptions.texts.values())),
        cost=LlmCost.sum(cost for cost in costs if cost is not None),
    )
    if run.describe.provider != "file":
        return result
    user_texts = user_descriptions(run.describe)
    used = set(user_texts.keys(prompts).values())
    unused = tuple(key for key in user_texts.texts if key not in used)
    return result.model_copy(update={"file": user_texts.path.name, "unused": unused})


def _asks(run: RunSpec) -> bool:
    return run.describe.provider == "openai"


@result_in_key  # class_parts: what a part takes of it
def _prompts(job: Job) -> PromptSet:
    return class_set(job.run, job.environment.data)


@result_in_key  # _class_key
def _written(job: Job) -> Descriptions:
    return written_descriptions(job.run, job.environment.data)


def settings(run: RunSpec) -> dict[str, Any]:
    """What the provider's texts depend on."""
    return run.describe.model_dump(mode="json", include=set(SETTINGS[run.describe.provider]))


def outside(run: RunSpec, environment: RunEnvironment) -> dict[str, Any]:
    """The class set, which is written beside the descriptions."""
    return asdict(class_set(run, environment.data))
