"""Stage `describe`: n descriptions a class → descriptions.json, with their provenance; a class a part."""

from dataclasses import asdict
from typing import Any

from excel_core.config import RunSpec
from excel_core.prompts import Descriptions, PromptSet
from excel_core.stores import read_json, write_json
from tasks.identity import digest_of
from tasks.progress import track
from tasks.prompt_files import bundled_descriptions, class_set
from tasks.stage import Part, Place, Stage, Work

__all__ = ["STAGE"]


def class_parts(work: Work) -> list[Part]:
    """A part depends on its class's own bundled texts and on how many are asked for; not on its synonyms."""
    prompts, bundled, n = _prompts(work), _bundled(work), work.run.describe.n
    spec = {"spec": _spec(work.run), "provenance": dict(bundled.provenance), "template": prompts.template}
    return [
        Part(name=name, items=n, key=spec | {"class": name, "texts": digest_of(bundled.texts[name])}, about={"class": name})
        for name in prompts.class_names
    ]


def build_class(work: Work) -> dict[str, Any]:
    """Ask the provider for one class and write what it said."""
    name, bundled = work.this_part.about["class"], _bundled(work)
    texts = list(track(bundled.texts[name]))
    write_json(work.folder / "descriptions.json", {"provenance": dict(bundled.provenance), "texts": texts})
    return {"descriptions": len(texts)}


def join_classes(work: Work) -> dict[str, Any]:
    """All classes in one file, with the prompts that they belong to."""
    prompts = _prompts(work)
    found = {name: read_json(work.parts[name].folder / "descriptions.json") for name in prompts.class_names}
    write_json(
        work.folder / "descriptions.json",
        {
            "format": "excel-descriptions/1",
            "provenance": next(iter(found.values()))["provenance"],
            "classes": {name: part["texts"] for name, part in found.items()},
            "prompts": asdict(prompts),
        },
    )
    return {"classes": len(found), "descriptions": sum(len(part["texts"]) for part in found.values())}


def _prompts(work: Work) -> PromptSet:
    return class_set(work.run, work.place.data)


def _bundled(work: Work) -> Descriptions:
    return bundled_descriptions(work.run, work.place.data)


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.describe.model_dump(mode="json")


def _outside(run: RunSpec, place: Place) -> dict[str, Any]:
    return asdict(class_set(run, place.data))


STAGE = Stage(
    "describe", (), _spec, join_classes, parts=class_parts, build_part=build_class, outside=_outside, parallel="threads"
)
