"""`excel segment`: masks of single photos, from class names alone or by a trained segmenter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import Clip, Device, Sets, Store, console, text

__all__ = ["segment"]

CLASSES = "class names with commas, e.g. 'dog,potted plant'; each photo is taken to show every one of them"
WEIGHTS = "a trained segmenter: a run's id, FILE of `excel export`, or a checkpoint of the published code (with --clip)"


def segment(
    photos: Annotated[list[Path], typer.Argument(help="photos, or folders of photos")],
    classes: Annotated[
        str | None, typer.Option(help=f"{CLASSES}. With --weights: only these classes", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for masks and overlays")] = Path("segmented"),
    clip: Clip = None,
    device: Device = "cpu",
    method: Annotated[str | None, typer.Option(help="reference, paper or clean; default reference", show_default=False)] = None,
    settings: Sets = None,
    weights: Annotated[
        str | None,
        typer.Option(help=WEIGHTS, show_default=False),
    ] = None,
    multi_scale: Annotated[bool, typer.Option("--multi-scale", help="with --weights: several scales and flips")] = False,
    crf: Annotated[bool, typer.Option("--crf", help="with --weights: then the dense CRF")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="also a picture of every step")] = False,
    side: Annotated[int, typer.Option(min=64, help="pixels of the longer side that masks are computed at, at most")] = 640,
    force: Annotated[bool, typer.Option("--force", help="replace files in --out")] = False,
    store: Store = None,
) -> None:
    """Segment single photos, without data set and training: --classes names what they show. Or with --weights by a trained
    segmenter, which finds out for itself. Photos are turned upright as their EXIF orientation says, and so are the masks."""
    from excel_core.prediction.predictors import parse_classes
    from tasks.photos.segment_photos import photos_of, segment_photos

    names = parse_classes(classes) if classes is not None else ()
    _check_together(weights, clip is not None, bool(method or settings), multi_scale or crf)
    found = photos_of(photos, out, force)
    if weights is None:
        predictor = _training_free(names, clip, device, method, settings or [], store)
    else:
        predictor = _trained(weights, names, clip, device, store, multi_scale, crf)
    for note in predictor.notes:
        print(note)
    results = segment_photos(found, predictor, out, side, steps)
    _show(results, out)
    raise typer.Exit(0 if any(not result.error for result in results) else 2)


def _check_together(weights: str | None, clip: bool, settings: bool, for_weights: bool) -> None:
    """Refuse options that the other way of seeing would ignore."""
    from excel_core.errors import SettingError
    from excel_core.models.published_checkpoint import is_published

    if weights is None and for_weights:
        raise SettingError("--multi-scale and --crf are for --weights; without, --set refine.crf.enabled=… switches the CRF")
    if weights is None or not (clip or settings):
        return
    path = Path(weights)
    if not is_published(path) and (path.exists() or path.suffix != ".safetensors"):  # else loading it says that it is not there
        raise SettingError("--weights brings its own CLIP and settings: leave out --clip, --method and --set")
    if settings:
        raise SettingError("--weights brings its own settings: leave out --method and --set")


def _training_free(
    names: tuple[str, ...], clip: str | None, device: str, method: str | None, settings: list[str], store: Path | None
) -> Any:
    from excel_core.errors import SettingError
    from excel_core.text.class_sets import DATA_CLASSES
    from flows.local.state import store_folder
    from flows.settings import check_device, make_run
    from tasks.engine.stage import RunEnvironment
    from tasks.photos.trained import training_free

    if not names:
        raise SettingError("say what the photos show: --classes 'dog,sofa'; or name a trained segmenter: --weights RUN")
    # The photos' own classes, so that a file of descriptions need not know all of VOC's.
    run = make_run("voc", method or "reference", settings, clip, {"dataset": {"prompts": DATA_CLASSES}})
    return training_free(names, run, RunEnvironment(store=store_folder(text(store)), device=check_device(device)))


def _trained(
    weights: str, names: tuple[str, ...], clip: str | None, device: str, store: Path | None, multi_scale: bool, crf: bool
) -> Any:
    from excel_core.prediction.predictors import trained_predictor
    from flows.local.state import store_folder
    from flows.settings import check_device
    from tasks.photos.trained import find_segmenter

    trained = find_segmenter(weights, store_folder(text(store)), check_device(device), clip)
    return trained_predictor(trained, names, multi_scale, crf)


def _show(results: list[Any], out: Path) -> None:
    """A table of what was found, the photos that were skipped, and where the files are."""
    from artifacts.photo_overlay import share_text
    from artifacts.rows import print_rows

    rows = []
    for result in (result for result in results if not result.error):
        shares = "\n".join(f"{name} {share_text(share)}" for name, share in result.shares.items())
        height, width = result.size
        rows.append(
            {
                "photo": result.photo.name,
                "size": f"{width}×{height}",
                "pixels": shares or "only background",
                "files": "\n".join(path.name for path in result.files),
            }
        )
    print_rows(console(), f"Masks in {out}", rows, [], ["photo", "size", "pixels", "files"])
    for result in results:
        if result.error:
            print(f"skipped {result.photo}: {result.error}")
