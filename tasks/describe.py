"""Stage `describe`: n descriptions a class, from a file or a language model; a class a part.

descriptions.json   excel-descriptions/1 (excel_core/text/descriptions.py): to copy, edit, and use as a bundled file
prompts.json        the class set that they belong to
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from excel_core.config import RunSpec
from excel_core.files import read_json, write_json
from excel_core.text.class_sets import class_set, given_descriptions, written_descriptions
from excel_core.text.descriptions import Descriptions
from excel_core.text.prompts import ClassPrompt, PromptSet
from tasks.ask_class import ask_class, asked_provenance, instruction_of
from tasks.engine.identity import digest_of
from tasks.engine.progress import track
from tasks.engine.stage import Part, RunEnvironment, Stage, Work

__all__ = ["STAGE"]

# What the texts hang on, and nothing else: neither how fast a model is asked nor what it costs.
SETTINGS = {
    "bundled": ("provider", "n"),
    "file": ("provider", "n"),  # the texts are in the keys of the parts, so the file may lie anywhere
    "openai": ("provider", "n", "model", "base_url", "structured", "temperature"),
}
COSTS = ("requests", "prompt_tokens", "completion_tokens", "usd")


def class_parts(work: Work) -> list[Part]:
    """A part depends on its class's own texts where they are written already, else on what the request says of its class. It
    depends on no synonym and no other class, although a request names them: if one class changes, that one is asked for."""
    n, own_key = work.run.describe.n, _asked_key(work) if _asks(work.run) else _written_key(work)
    whole = {"spec": _spec(work.run), "template": _prompts(work).template}
    return [
        Part(name=one.name, items=n, key=whole | {"class": one.name} | own_key(one), about={"class": one.name})
        for one in _prompts(work).classes
    ]


def _written_key(work: Work) -> Callable[[ClassPrompt], dict[str, Any]]:
    written = _written(work)
    return lambda one: {
        "provenance": written.provenance | written.class_provenance.get(one.name, {}),
        "texts": digest_of(written.texts[one.name]),
    }


def _asked_key(work: Work) -> Callable[[ClassPrompt], dict[str, Any]]:
    instruction = digest_of(instruction_of(work.run.describe).template)
    return lambda one: {"about": one.about, "instruction": instruction}


def build_class(work: Work) -> dict[str, Any]:
    """Get one class's descriptions and write them."""
    name, summary = work.this_part.about["class"], {}
    if _asks(work.run):
        answer = ask_class(work.run.describe, _prompts(work), name)
        texts, provenance, summary = answer.texts, answer.provenance, answer.cost
    else:
        written = _written(work)
        texts, provenance = written.texts[name], written.class_provenance.get(name, {})
    write_json(work.folder / "descriptions.json", {"texts": list(track(texts)), "provenance": provenance})
    return {"descriptions": len(texts)} | summary


def join_classes(work: Work) -> dict[str, Any]:
    """All classes in one file, and beside it the class set that they belong to."""
    prompts, run = _prompts(work), work.run
    found = {name: read_json(work.parts[name].folder / "descriptions.json") for name in prompts.class_names}
    whole = Descriptions(
        texts={name: tuple(part["texts"]) for name, part in found.items()},
        provenance=asked_provenance(run.describe) if _asks(run) else _written(work).provenance,
        class_provenance={name: part["provenance"] for name, part in found.items() if part["provenance"]},
    )
    write_json(work.folder / "descriptions.json", whole.document())
    write_json(work.folder / "prompts.json", asdict(prompts))
    parts = [part.summary for part in work.parts.values()]
    costs = {cost: sum(part[cost] for part in parts) for cost in COSTS if all(cost in part for part in parts)}
    summary = {"classes": len(found), "descriptions": sum(map(len, whole.texts.values()))}
    return summary | _file_summary(run, prompts) | costs


def _file_summary(run: RunSpec, prompts: PromptSet) -> dict[str, Any]:
    """Which file the texts come from, and which of its classes the run does not use."""
    if run.describe.provider != "file":
        return {}
    given = given_descriptions(run.describe)
    used = set(given.keys(prompts).values())
    return {"file": given.path.name, "unused": [key for key in given.texts if key not in used]}


def _asks(run: RunSpec) -> bool:
    return run.describe.provider == "openai"


def _prompts(work: Work) -> PromptSet:
    return class_set(work.run, work.place.data)


def _written(work: Work) -> Descriptions:
    return written_descriptions(work.run, work.place.data)


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.describe.model_dump(mode="json", include=set(SETTINGS[run.describe.provider]))


def _outside(run: RunSpec, place: RunEnvironment) -> dict[str, Any]:
    return asdict(class_set(run, place.data))


STAGE = Stage(
    "describe", (), _spec, join_classes, parts=class_parts, build_part=build_class, outside=_outside, parallel="threads"
)
