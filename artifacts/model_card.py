"""A trained segmenter's model card: README.md as the Hugging Face Hub reads it, with every score's protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from artifacts.rows import markdown_table, markdown_text
from artifacts.tables import results_rows
from artifacts.view import Metrics

__all__ = ["CardFacts", "model_card"]

LIBRARY, TASK = "excel-wsss", "image-segmentation"


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the scores. licence: of the weights, as an SPDX identifier; None where nobody stated one."""

    run: str
    preset: str
    method: str
    clip: str
    second_encoder: str | None
    class_names: Sequence[str]
    supervision: str
    iterations: int | None
    settings: Sequence[str] = ()
    licence: str | None = None
    files: Sequence[str] = ("segmenter.safetensors",)


def model_card(facts: CardFacts, metrics: Metrics | None) -> str:
    """Markdown with YAML front matter. `metrics` is metrics.json; None where the run was not evaluated."""
    head: dict[str, Any] = {"library_name": LIBRARY, "pipeline_tag": TASK}
    head["tags"] = ["semantic-segmentation", "weakly-supervised", "clip", facts.method.partition(":")[0]]
    if facts.licence:
        head["license"] = facts.licence.lower()  # as the Hub spells its keys
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{front}---",
        f"# {markdown_text(facts.preset)} segmenter, method `{facts.method}`",
        _how_to_use(facts),
        "## What it was made from\n\n" + "\n".join(f"* {line}" for line in _made_from(facts)),
        "## Scores\n\n" + _scores(metrics),
        "## Limits\n\n" + _limits(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _how_to_use(facts: CardFacts) -> str:
    lines = []
    if "segmenter.safetensors" in facts.files:
        lines = ["```", "pip install excel-wsss", "excel segment photos/ --weights segmenter.safetensors", "```"]
    if "segmenter.onnx" in facts.files:
        lines += ["`segmenter.onnx` takes `image` (B, 3, H, W), RGB in [0, 1]; its metadata say how to resize a photo."]
    classes = ", ".join(markdown_text(name) for name in facts.class_names)
    return "\n".join([*lines, "", f"Labels: 0 background, then in this order: {classes}."]).strip()


def _made_from(facts: CardFacts) -> list[str]:
    lines = [f"Supervision of the training: {facts.supervision}.", f"Frozen encoder: `{facts.clip}`."]
    if facts.second_encoder:
        lines.append(f"Second frozen encoder: `{facts.second_encoder}`.")
    if facts.iterations is not None:
        lines.append(f"Iterations: {facts.iterations:,}.")
    lines.append(f"Preset `{facts.preset}`, method `{facts.method}`, run `{facts.run}` of excel (`{LIBRARY}`).")
    if facts.settings:
        lines.append("Settings changed: " + ", ".join(f"`{setting}`" for setting in facts.settings) + ".")
    return lines


def _scores(metrics: Metrics | None) -> str:
    if metrics is None or not metrics.get("results"):
        return "This run was not evaluated."
    return "Shares in [0, 1], with 95 % bootstrap intervals over images.\n\n" + markdown_table(results_rows(metrics)).strip()


def _limits(facts: CardFacts) -> str:
    limits = (
        "It knows the classes above alone; everything else is background to it. Masks learnt from image-level labels miss",
        "parts that look like their surroundings, and take in what always appears together with a class. Scores hold for the",
        "data and protocol named beside them. The file contains the frozen encoder's weights, whose conditions hold for it.",
        "" if facts.licence else "No licence of what was trained was stated.",
    )
    return " ".join(limits).strip()
