"""`excel segment`: masks of single photos, from class names alone or by a trained segmenter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.complete import run_names
from flows.cli.options import console, takes_request
from flows.cli.output import give
from flows.request import RunRequest
from flows.request_fields import METHOD_HELP

__all__ = ["segment"]

CLASSES = "class names with commas, e.g. 'dog,potted plant'; each photo is taken to show every one of them"
MAX_NAME_CHARACTERS = 30  # of a file in the table
WEIGHTS = (
    "a trained segmenter: a run (its name, id or `latest`), FILE of `excel export`, or a checkpoint of the published code "
    "(with --clip)"
)


@takes_request(RunRequest, "clip device settings store")
def segment(
    photos: Annotated[list[Path], typer.Argument(help="photos, or folders of photos")],
    request: RunRequest,
    classes: Annotated[
        str | None, typer.Option(help=f"{CLASSES}. With --weights: only these classes", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for masks and overlays")] = Path("segmented"),
    method: Annotated[str | None, typer.Option(help=f"{METHOD_HELP}; default excel", show_default=False)] = None,
    weights: Annotated[str | None, typer.Option(help=WEIGHTS, autocompletion=run_names, show_default=False)] = None,
    multi_scale: Annotated[bool, typer.Option("--multi-scale", help="with --weights: several scales and flips")] = False,
    crf: Annotated[bool, typer.Option("--crf", help="with --weights: then the dense CRF")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="also a picture of every step")] = False,
    side: Annotated[int, typer.Option(min=64, help="pixels of the longer side that masks are computed at, at most")] = 640,
    force: Annotated[bool, typer.Option("--force", help="replace files in --out")] = False,
) -> None:
    """Segment single photos, without data set and training: --classes names what they show. Or with --weights by a trained
    segmenter, which finds out for itself. Photos are turned upright as their EXIF orientation says, and so are the masks.
    Exit 1 where some photo was skipped, 2 where all were."""
    from excel_core.prediction.photos import photos_in_sub_folders
    from excel_core.prediction.predictors import parse_classes
    from flows.local.state import store_folder
    from tasks.engine.lock import store_in_use
    from tasks.photos.segment_photos import photos_of, segment_photos

    names = parse_classes(classes) if classes is not None else ()
    _check_together(weights, request.clip is not None, bool(method or request.settings), multi_scale or crf)
    files = photos_of(photos, out, force)
    with store_in_use(store_folder(request.store)):  # until everything is read from it
        if weights is None:
            predictor = _training_free(names, request.model_copy(update={"method": method or "excel"}))
        else:
            predictor = _trained(weights, names, request, multi_scale, crf)
    for note in (*predictor.warnings, *predictor.notes):
        print(note)
    left_out = photos_in_sub_folders(photos)
    segmented = segment_photos(files, predictor, out, side, steps, left_out)
    give({"out": str(out), "class_names": list(predictor.class_names), "photos": [result.to_json() for result in segmented]})
    _show(segmented, left_out, out)
    skipped = sum(bool(result.error) for result in segmented)
    raise typer.Exit(0 if not skipped else 1 if skipped < len(segmented) else 2)


def _check_together(weights: str | None, clip: bool, settings: bool, for_weights: bool) -> None:
    """SettingError for options that would be ignored: with --weights, or without."""
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


def _training_free(names: tuple[str, ...], request: RunRequest) -> Any:
    from excel_core.errors import SettingError
    from excel_core.text.class_sets import DATA_CLASSES
    from flows.settings import environment_to_look
    from tasks.photos.trained import training_free

    if not names:
        raise SettingError("say what the photos show: --classes 'dog,sofa'; or name a trained segmenter: --weights RUN")
    # The photos' own classes, so that a file of descriptions need not know all of VOC's.
    run = request.model_copy(update={"edits": {"dataset": {"prompts": DATA_CLASSES}}}).spec()
    return training_free(names, run, environment_to_look(request))


def _trained(weights: str, names: tuple[str, ...], request: RunRequest, multi_scale: bool, crf: bool) -> Any:
    from excel_core.prediction.predictors import trained_predictor
    from flows.settings import environment_to_look
    from tasks.photos.trained import find_segmenter

    environment = environment_to_look(request)
    trained = find_segmenter(weights, environment.store, environment.device, request.clip)
    return trained_predictor(trained, names, multi_scale, crf)


def _show(results: list[Any], left_out: list[Path], out: Path) -> None:
    """A table of what was found, what is doubtful in it, the photos that were skipped, and where the files are."""
    from artifacts.rows import print_rows
    from excel_core.datasets.left_out import LeftOut, left_out_lines
    from excel_core.datasets.photo_files import printable

    rows = [_row(result) for result in results if not result.error]
    print_rows(console(), f"Masks in {out}", rows, [], ["photo", "size", "pixels", "files"])
    for result in results:
        photo = printable(result.photo)
        for name, reason in result.doubts.items():
            print(f"doubtful: {name} in {photo}: {reason}")
        if result.error:
            print(f"skipped {photo}: {result.error}")
    reason = "sub-folders are not looked into; name them too"
    for line in left_out_lines(LeftOut(str(path), reason) for path in left_out):
        print(line)


def _row(result: Any) -> dict[str, str]:
    from artifacts.drawing.photo_masks import share_text
    from excel_core.datasets.photo_files import printable

    shares = [
        f"{name}: doubtful ({share_text(share)})" if name in result.doubts else f"{name} {share_text(share)}"
        for name, share in result.shares.items()
    ]
    height, width = result.size
    return {
        "photo": _shortened(printable(result.photo.name)),
        "size": f"{width}×{height}",
        "pixels": "\n".join(shares) or "only background",
        "files": "\n".join(_shortened(printable(path.name)) for path in result.files),
    }


def _shortened(name: str) -> str:
    """A long name without its middle, so that the table has room for its other columns; photos.json has it whole."""
    half = MAX_NAME_CHARACTERS // 2
    return name if len(name) <= MAX_NAME_CHARACTERS else f"{name[:half]}…{name[-half:]}"
