"""What an edit of prompts did to the training-free label maps: two runs' texts, T_c and scores side by side.

STORE/score/RUN.json (excel-score-change/1):

    before, after     ids of the runs; `before` is null, and what is compared empty, where there is no run to compare with
    passed_over       runs that could not be compared, and why
    settings, code    {field, a, b} of settings that differ beside the texts; stages whose code was edited between
    background        prompts that came and went
    classes           {class, prompt, added, removed, edited, moved, noise} of each; `noise` is the most that T_c moved in
                      `reclusterings` clusterings of the old texts with other seeds
    results           {split, step, protocol, miou, classes} of the first and last step of each split; of miou and of each class
                      {a, b, difference, low, high}, of a class its `images` too
    left_out          what is not compared, and why
    images, picture   {split, id, a, b, difference} of the images that changed most; digest of RUN.png, which shows them, or ""
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artifacts.changed_images import ChangedImage, draw_changed_images
from excel_core.checked_files import read_checked_json, write_checked_json
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import StoreError
from excel_core.evaluation.bootstrap import confusions_by_image
from excel_core.evaluation.examples import most_changed_images
from excel_core.files import read_json, written_then_renamed
from excel_core.stores import read_counts, read_knowledge
from excel_core.text.knowledge import KnowledgeBase
from excel_core.text.knowledge_noise import RECLUSTERINGS, movements, reclustered_movements
from excel_core.text.prompt_edits import Words, background_edit, class_edits
from excel_core.text.prompts import PromptSet
from tasks.engine.fingerprint import file_digest
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, mask_access
from tasks.history.compared_scores import compared_scores
from tasks.history.earlier_run import EarlierRun, other_code, other_settings, shared_photos
from tasks.inputs.images import images_of
from tasks.inputs.masks import mask_reader_of
from tasks.stages.label_scores import label_maps

__all__ = ["ScoredRun", "change_file", "read_change", "write_change", "write_no_change"]

FORMAT = "excel-score-change/1"
MAX_IMAGES = 6  # that are drawn
MIN_CHANGE = 0.005  # of an image's mIoU; a smaller one is not seen in two digits


@dataclass(frozen=True)
class ScoredRun:
    """A run's id, its outputs MADE by stage, the job of its stage `score`, and that job's output."""

    id: str
    outputs: Mapping[str, StageOutput]
    job: Job
    score: StageOutput


def change_file(store: Path, run_id: str) -> Path:
    """Where a run's comparison is."""
    return store / "score" / f"{run_id}.json"


def read_change(path: Path) -> dict[str, Any]:
    """What `write_change` wrote. StoreError where it is damaged, or its picture."""
    change = read_checked_json(path)
    picture = path.with_suffix(".png")
    if change["picture"] and (not picture.is_file() or file_digest(picture) != change["picture"]):
        raise StoreError(f"{picture}: is missing or damaged; run excel score again")
    return change


def write_change(earlier: EarlierRun, before: ScoredRun, after: ScoredRun, path: Path) -> None:
    """Compare two runs' texts, T_c and scores, draw the images that changed most, and write both. Opens masks of these."""
    change: dict[str, Any] = {"format": FORMAT, "preset": after.job.run.preset, "before": before.id, "after": after.id}
    change |= {"passed_over": earlier.passed_over} | _settings(before, after) | _texts(before, after) | _scores(before, after)
    images, picture = _changed_images(before, after, change["images"]), path.with_suffix(".png")
    if images:
        with written_then_renamed(picture) as temporary:
            temporary.write_bytes(draw_changed_images(images, _knowledge(after).class_names))
    else:
        picture.unlink(missing_ok=True)
    write_checked_json(path, change | {"picture": file_digest(picture) if images else ""})


def write_no_change(after: ScoredRun, passed_over: dict[str, str], path: Path) -> None:
    """The same where there is no run to compare with; `passed_over` says why others were not."""
    change = {"format": FORMAT, "preset": after.job.run.preset, "before": None, "after": after.id, "passed_over": passed_over}
    nothing = {"settings": [], "code": [], "reclusterings": 0, "background": {"added": [], "removed": []}, "classes": []}
    write_checked_json(path, change | nothing | {"results": [], "left_out": {}, "images": [], "picture": ""})


def _settings(before: ScoredRun, after: ScoredRun) -> dict[str, Any]:
    """What differs beside the texts."""
    settings = other_settings(before.job.run, after.job.run)
    return {"settings": settings, "code": other_code(before.outputs, after.outputs)}


def _texts(before: ScoredRun, after: ScoredRun) -> dict[str, Any]:
    """The edit of every class, how far its T_c moved, and how far clustering alone moves it."""
    old, new = _words(before), _words(after)
    edits, background = class_edits(old, new), background_edit(old.prompts, new.prompts)
    moved, noise = _movements(before, after)
    return {
        "reclusterings": RECLUSTERINGS,
        "background": {"added": background.added, "removed": background.removed},
        "classes": [
            {"class": name, **asdict(edit), "edited": edit.edited, "moved": moved[i], "noise": noise[i]}
            for i, (name, edit) in enumerate(edits.items())
        ],
    }


def _words(side: ScoredRun) -> Words:
    base = _knowledge(side)
    each = len(base.texts) // len(base.class_names)
    texts = {name: base.texts[i * each : (i + 1) * each] for i, name in enumerate(base.class_names)}
    return Words(PromptSet.from_dict(read_json(side.outputs["describe"].folder / "prompts.json")), texts)


def _movements(before: ScoredRun, after: ScoredRun) -> tuple[list[float | None], list[float | None]]:
    """1 − cosine between each class's T_c before and after, and the largest that clustering alone makes of the old texts."""
    old, new = _knowledge(before), _knowledge(after)
    classes = len(old.class_names)
    texts = [base.knowledge.text[:classes] for base in (old, new)]
    if before.job.run.clip.model != after.job.run.clip.model:
        return [None] * classes, [None] * classes  # T_c of two CLIPs have no cosine
    moved = movements(texts[0], texts[1])
    if not moved.any():
        return moved.tolist(), [0.0] * classes
    noise = reclustered_movements(old.knowledge, before.job.run.knowledge).max(axis=0)
    return moved.tolist(), noise.tolist()


def _knowledge(side: ScoredRun) -> KnowledgeBase:
    return read_knowledge(side.outputs["knowledge"].folder / "knowledge.zarr")


def _scores(before: ScoredRun, after: ScoredRun) -> dict[str, Any]:
    """The first and last step that both runs have of each split, over the photos that both have."""
    sides = before, after
    scored = [read_json(side.score.folder / "score.json") for side in sides]
    counts = [read_counts(side.score.folder / "confusion.parquet") for side in sides]
    names, photos = ("background", *_knowledge(after).class_names), shared_photos(before.outputs, after.outputs)
    results, changed, left_out = [], [], dict(scored[1]["skipped"])
    for key in scored[1]["results"]:
        if key not in scored[0]["results"]:
            left_out[key] = f"run {before.id} has no such label maps"
    for split, keys in _shared_steps(scored[0]["results"], scored[1]["results"]).items():
        tables = [[table[table["result"] == key] for key in keys] for table in counts]
        ids = [set(steps[0]["image"]) for steps in tables]
        images = sorted(image for image in ids[0] & ids[1] if (split, image) in photos)
        left = len(ids[0] | ids[1]) - len(images)
        left_out |= (
            {f"{left} images of {split}": "only one of the runs scored them, or their photo was changed"} if left else {}
        )
        if not images:
            continue
        for place, key in enumerate(keys):
            a, b = (confusions_by_image(steps[place], images, len(names)) for steps in tables)
            protocol = scored[1]["results"][key]["protocol"] | {"images": len(images)}
            results.append({"split": split, "step": _step(key), "protocol": protocol} | compared_scores(a, b, names))
        most = most_changed_images(images, a, b, len(names), MAX_IMAGES)  # of the last step
        most = [entry for entry in most if abs(entry["difference"]) >= MIN_CHANGE]
        changed += [{"split": split, "step": _step(keys[-1])} | entry for entry in most]
    changed.sort(key=lambda entry: -abs(entry["difference"]))
    return {"results": results, "left_out": left_out, "images": changed[:MAX_IMAGES]}


def _shared_steps(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[str]]:
    """By split: the result keys of the first and the last step that both runs have; one where these are the same."""
    keys: dict[str, list[str]] = {}
    for key in (key for key in b if key in a):
        keys.setdefault(b[key]["protocol"]["split"], []).append(key)
    return {split: list(dict.fromkeys((steps[0], steps[-1]))) for split, steps in keys.items()}


def _step(key: str) -> str:
    return key.rpartition(".")[2]


def _changed_images(before: ScoredRun, after: ScoredRun, entries: Sequence[dict[str, Any]]) -> list[ChangedImage]:
    """Photo, label maps before and after, and truth. Masks are opened here as the stage `score` may."""
    images = []
    for entry in entries:
        split, image = entry["split"], entry["id"]
        record = next(record for record in images_of(after.job, split) if record.id == image)
        maps = [load_labels_png(label_maps(side.job, "static", split, image)[entry["step"]]) for side in (before, after)]
        with mask_access(after.job):
            truth = mask_reader_of(after.job, split).read(image, record.height, record.width)
        images.append(ChangedImage(image, split, record.read(), maps[0], maps[1], truth, entry["a"], entry["b"]))
    return images
