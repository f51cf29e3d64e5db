"""Stage `figures`: the paper's figures 4, 5 and 6 on a few labelled images → figure_4.png, figure_5.png, figure_6.png and
figures.json, which says what they show. Under the mask guard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from artifacts.paper.figures import PaperImage, draw_cams, draw_query, draw_responses, figures_document
from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec
from excel_core.config.variants import without_tse
from excel_core.errors import DataError, SettingError
from excel_core.files import write_json, written_then_renamed
from excel_core.paper.figures import attribute_responses, cam_columns, query_maps, strongest_patch
from excel_core.stores import read_knowledge
from tasks.engine.fingerprint import clip_fingerprint
from tasks.engine.output import StageResult
from tasks.engine.progress import Counter, track
from tasks.engine.stage import Dependency, Job, RunEnvironment
from tasks.inputs.images import ImageRecord, images_of
from tasks.inputs.models import load_cam_model, load_knowledge, load_trained
from tasks.stages.train import TrainResult

__all__ = ["FiguresResult", "draw_figures", "outside", "plain_knowledge", "settings"]

PLAIN = "plain texts"  # input: the knowledge base without enrichment


class FiguresResult(StageResult):
    """Photos shown, and figures."""

    images: int
    figures: int


def draw_figures(job: Job, folder: Path) -> FiguresResult:
    """Compute the maps of each image with the run's models, draw them, and write what is shown."""
    rows, notes = _chosen(job)
    cam_model = load_cam_model(job)
    plain = read_knowledge(job.folder(PLAIN) / "knowledge.zarr").knowledge.text
    segmenter = load_trained(job, cam_model)
    with Counter(job.name, len(rows)):
        images = [_paper_image(job, cam_model, plain, segmenter, row) for row in track(rows)]
    notes = _notes(job, images) + notes
    pictures = {
        "4": draw_cams(images, job.run.cams.calibration.attention, notes),
        "5": draw_responses(images, notes),
        "6": draw_query(images, notes),
    }
    for number, png in pictures.items():
        with written_then_renamed(folder / f"figure_{number}.png") as temporary:
            temporary.write_bytes(png)
    write_json(folder / "figures.json", figures_document(job.run, images, notes))
    return FiguresResult(images=len(images), figures=len(pictures))


def _chosen(job: Job) -> tuple[list[ImageRecord], list[str]]:
    """Images with image-level labels: those named, or the first of the validation splits; and notes on images left out."""
    spec, dataset = job.run.figures, job.run.dataset
    if not spec.images:
        rows = [row for split in dataset.val_splits for row in images_of(job, split) if row.classes][: spec.count]
        few = f"{spec.count} images were asked for; the validation splits have {len(rows)} with a label."
        notes = [few] if len(rows) < spec.count else []
    else:
        splits = dict.fromkeys((*dataset.val_splits, dataset.train_split))
        record_of = {row.id: row for split in reversed(splits) for row in images_of(job, split)}
        unknown = [image for image in spec.images if image not in record_of]
        if unknown:
            raise SettingError(
                f"figures.images: no usable image {unknown[0]!r} in {', '.join(splits)}; name ids of these splits, "
                f"e.g. {next(iter(record_of), 'none')}"
            )
        rows = [record_of[image] for image in dict.fromkeys(spec.images) if record_of[image].classes]
        notes = [f"{image} has no image-level label and is left out." for image in spec.images if not record_of[image].classes]
    if not rows:
        where = ", ".join(spec.images or dataset.val_splits)
        raise DataError(f"figures: no image with an image-level label in {where}; name labelled ones: figures.images=[ID, …]")
    return rows, notes


def _paper_image(job: Job, cam_model: CamModel, plain: Tensor, segmenter: Any, row: ImageRecord) -> PaperImage:
    """Everything drawn of one image: the CAMs, attribute responses and query patch of its first class."""
    run, store, photo = job.run, load_knowledge(job), row.read()
    image, shown = cam_model.prepare([photo]), row.classes[0]
    cams = cam_columns(cam_model, plain, segmenter, image, shown, run.refine, run.dynamic.mirror)
    responses = attribute_responses(cam_model, store.knowledge, run.knowledge, image, shown, run.figures.attributes)
    query = run.figures.query or strongest_patch(cams.static)
    maps = query_maps(cam_model, segmenter, image, query, run.refine, run.dynamic.mirror)
    descriptions = tuple(store.texts[i] for i in responses.nearest)
    return PaperImage(row.id, store.class_names[shown], photo, cams, responses, descriptions, maps)


def _notes(job: Job, images: Sequence[PaperImage]) -> list[str]:
    """Which run the figures are of, how it was trained, and which steps it lacks."""
    run, attention = job.run, job.run.cams.calibration.attention
    notes = [f"preset {run.preset}, {run.method} method, {run.clip.model}; a class is one of the photo's image-level labels"]
    supervision = job.result("train", TrainResult).supervision
    if supervision is not None:
        notes.append(f"trained on {supervision}")
    if all(image.cams.enriched is None for image in images):
        notes.append(f"No + TSE: the class texts are the plain templates (knowledge.mode={run.knowledge.mode}).")
    if attention != "svc":
        notes.append(f"No SVC and no LVC: cams.calibration.attention={attention}.")
    return notes


def plain_knowledge(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """The knowledge base without enrichment."""
    return {PLAIN: Dependency("knowledge", without_tse(run))}


def outside(run: RunSpec, environment: RunEnvironment) -> str:
    """The CLIP."""
    return clip_fingerprint(run.clip.model)


def settings(run: RunSpec) -> dict[str, Any]:
    """What is shown, and how its maps are made."""
    return {
        "preset": run.preset,
        "method": run.method,
        "figures": run.figures.model_dump(mode="json"),
        "val_splits": list(run.dataset.val_splits),
        "cams": run.cams.model_dump(mode="json", exclude={"batch_size"}),
        "knowledge": run.knowledge.model_dump(mode="json"),
        "affinity": run.refine.affinity.model_dump(mode="json"),
        "segmenter": run.train.segmenter.model_dump(mode="json"),
        "dynamic": run.dynamic.model_dump(mode="json"),
    }
