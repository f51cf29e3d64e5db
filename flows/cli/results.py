"""`excel evaluate`, `parity`, `parity-peers`, `figures`, `export`: comparing finished work, and taking it away."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from excel_core.errors import SettingError
from flows.cli.complete import run_names
from flows.cli.options import Store, console, takes_request
from flows.cli.output import give
from flows.cli.runs import RUN_HELP
from flows.request import RunRequest

if TYPE_CHECKING:
    from excel_core.evaluation.parity import Comparison

__all__ = ["evaluate", "export", "figures", "parity", "parity_peers"]

# Spelled out, so that `--help` loads nothing; tasks.photos.export refuses any other.
FORMATS = (
    "palette, binary, coco, coco-results, yolo, label-studio, label-studio-polygons, cvat, cvat-images, fiftyone, "
    "voc-submission (label maps); safetensors, onnx (the trained segmenter)"
)


def parity(
    prefix: Annotated[Path, typer.Argument(help="PREFIX of PREFIX.npz, PREFIX_clip.npz, PREFIX_head.npz")],
    pipeline: Annotated[
        Path | None, typer.Option(help="results of the published programs (.npz): compare with these", show_default=False)
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(help="with --pipeline: its photos, a folder in VOC layout with labels.csv", show_default=False),
    ] = None,
    classes: Annotated[str, typer.Option(help="with --pipeline: class set of labels.csv: voc, coco or FILE.yaml")] = "voc",
) -> None:
    """Compare the core with golden arrays of the published implementation, or the way from photo to labels with results of
    the published programs; exit 1 on any failure."""
    from excel_core.evaluation.parity import compare_with_goldens
    from excel_core.evaluation.parity_programs import compare_with_programs
    from excel_core.text.class_sets import prompts_file
    from excel_core.text.prompts import load_prompts

    if (pipeline is None) != (photos is None):
        raise SettingError("--pipeline and --photos go together: the results, and the photos they are of")
    if pipeline is None or photos is None:
        results = compare_with_goldens(prefix)
    else:
        results = compare_with_programs(prefix, pipeline, photos, load_prompts(prompts_file(classes)).class_names)
    give({"results": [_plain(result) for result in results]})
    _print_comparisons(results)
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


def parity_peers(
    folder: Annotated[Path, typer.Argument(help="folder of the golden arrays: clip_es.npz and the other methods' sets")],
    clip: Annotated[Path, typer.Option(help="the CLIP they were made with (.npz, OpenAI's names)")],
) -> None:
    """Compare the peer methods with golden arrays of their published programs; exit 1 on any failure."""
    from excel_core.evaluation.parity_peers import compare_with_peers

    compared = compare_with_peers(folder, clip)
    sets = {each.name: {"missing": each.missing, "results": [_plain(result) for result in each.results]} for each in compared}
    give({"sets": sets})
    for each in compared:
        print(f"{each.name}: {each.missing or f'{len(each.results)} keys'}")
        _print_comparisons(each.results)
    raise typer.Exit(0 if all(result.ok for each in compared for result in each.results) else 1)


def _plain(result: "Comparison") -> dict[str, Any]:
    error = float(result.error) if math.isfinite(result.error) else None  # JSON has neither infinity nor NaN
    return {"key": result.key, "error": error, "tolerance": float(result.tolerance), "ok": result.ok}


def _print_comparisons(results: "Sequence[Comparison]") -> None:
    """A line a key: error, tolerance, verdict; then how many there are of each."""
    if not results:
        return
    width = max(len(result.key) for result in results)
    for result in results:
        verdict = "ok" if result.ok else "FAIL"
        print(f"{result.key:<{width}}  error {result.error:.2e}  tolerance {result.tolerance:.0e}  {verdict}")
    failed = sum(not result.ok for result in results)
    print(f"{len(results) - failed} ok, {failed} failed")


def evaluate(
    pred: Annotated[Path, typer.Option(help="folder of predicted palette PNGs")],
    truth: Annotated[Path, typer.Option(help="folder of true palette PNGs")],
    classes: Annotated[str, typer.Option(help="voc, coco, world or a class FILE (.yaml)")],
    split: Annotated[
        Path | None, typer.Option(help="score only the images listed in this file: an id a line, or SBD's form")
    ] = None,
) -> None:
    """Score predicted label maps against true ones, file by file of the same name."""
    from artifacts.tables import print_scores
    from excel_core.datasets.lists import read_list
    from excel_core.evaluation.metrics import evaluate_folders
    from excel_core.text.class_sets import prompts_file
    from excel_core.text.prompts import load_prompts

    names = ("background", *load_prompts(prompts_file(classes)).class_names)
    scores = evaluate_folders(pred, truth, names, ids=None if split is None else read_list(split))
    give(scores.to_json())
    print_scores(scores.to_json(), console())
    for warning in scores.warnings:
        print(f"warning: {warning}")


@takes_request(RunRequest, "data store clip method settings")
def figures(
    folder: Annotated[Path, typer.Argument(help="where to write PRESET_gallery.png and PRESET_results.md")],
    request: RunRequest,
    preset: Annotated[str, typer.Option(help="voc or demo")] = "demo",
) -> None:
    """Write a finished run's pictures and tables, as README shows them."""
    from artifacts.readme_figures import write_figures
    from tasks.pipeline import complete_outputs, report_job
    from tasks.stages.report import make_view

    run, environment = request.model_copy(update={"preset": preset}).resolve()
    outputs = complete_outputs(run, environment, "report")
    if "report" not in outputs:
        raise SettingError(f"{environment.store} holds no finished run of these settings; run it first")
    paths = write_figures(folder, make_view(report_job(run, environment, outputs)))
    give({"files": [str(path) for path in paths]})
    for path in paths:
        print(path)


def export(
    run: Annotated[str, typer.Argument(help=RUN_HELP, autocompletion=run_names)],
    file_format: Annotated[str, typer.Option("--format", help=FORMATS)],
    out: Annotated[Path, typer.Option(help="folder to write; it must be empty or not there yet")],
    what: Annotated[
        str | None,
        typer.Option(help="pseudo (labels of a train or seed split) or segmentation; default segmentation", show_default=False),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="single_scale, multi_scale or multi_scale_crf; default the last the run has", show_default=False),
    ] = None,
    split: Annotated[str | None, typer.Option(help="needed where the run has several", show_default=False)] = None,
    photos: Annotated[
        bool, typer.Option("--photos", help="take the photos along, as the run read them; some formats always do")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier export in --out")] = False,
    store: Store = None,
) -> None:
    """Write a run's label maps, or its trained segmenter, in another tool's format. Nothing half-written is left."""
    from flows.local.state import store_folder
    from tasks.engine.lock import store_in_use
    from tasks.photos.export import ExportRequest, export_run
    from tasks.photos.exported_run import find_exported

    folder = store_folder(store)
    with store_in_use(folder):
        request = ExportRequest(file_format, what, variant, split, photos, force)
        record = find_exported(folder, run, request)
        exported = export_run(record, request, out)
    give(exported | {"run": record.id, "name": record.flow_run_name, "out": str(out)})
    if "images" in exported:
        which = " ".join(exported[key] for key in ("what", "variant", "split") if key in exported)
        print(f"{exported['images']} label maps ({which}) of run {record.title}")
    if "left_out" in exported:
        print(f"left out: {len(exported['left_out'])} images without label map, named in export.json")
    if "sizes" in exported:
        print(f"sizes: {exported['sizes']}")
    if "supervision" in exported:
        print(f"learnt from {exported['supervision']}")
    if check := exported.get("check"):
        print(
            f"ONNX against PyTorch on {check['images']} images: greatest difference of a logit {check['difference']:.1e} "
            f"(tolerance {check['tolerance']:.0e}), {check['equal']:.3%} of labels equal"
        )
    files = exported["holds"]
    print(out / files[0] if len(files) == 1 else out)
