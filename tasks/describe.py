"""Stage `describe`: n descriptions a class → descriptions.json, with their provenance."""

from dataclasses import asdict
from typing import Any

from excel_core.config import RunSpec
from excel_core.prompts import BundledProvider, load_prompts
from excel_core.stores import write_json
from tasks.fingerprint import files_fingerprint
from tasks.prompt_files import descriptions_file, prompts_file
from tasks.stage import Place, Stage, Work

__all__ = ["STAGE"]


def build_describe(work: Work) -> dict[str, Any]:
    """Ask the provider and write what it said."""
    prompts = load_prompts(prompts_file(work.run.dataset.prompts))
    provider = BundledProvider(descriptions_file(work.run.dataset.prompts))
    descriptions = provider.describe(prompts, work.run.describe.n)
    write_json(
        work.folder / "descriptions.json",
        {
            "format": "excel-descriptions/1",
            "provenance": dict(descriptions.provenance),
            "classes": {name: list(texts) for name, texts in descriptions.texts.items()},
            "prompts": asdict(prompts),
        },
    )
    return {"classes": len(descriptions.texts), "descriptions": sum(map(len, descriptions.texts.values()))}


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.describe.model_dump(mode="json")


def _outside(run: RunSpec, place: Place) -> list[str]:
    return files_fingerprint(prompts_file(run.dataset.prompts), descriptions_file(run.dataset.prompts))


STAGE = Stage("describe", (), _spec, build_describe, outside=_outside)
