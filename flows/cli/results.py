"""`excel evaluate`, `parity`, `figures`: scores of label maps, of the core against goldens, and README's pictures."""

from pathlib import Path
from typing import Annotated

import typer

from excel_core.errors import SettingError
from flows.cli.options import Clip, Data, Method, Sets, Store, console, text

__all__ = ["evaluate", "figures", "parity"]


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
    width = max(len(result.key) for result in results)
    for result in results:
        verdict = "ok" if result.ok else "FAIL"
        print(f"{result.key:<{width}}  error {result.error:.2e}  tolerance {result.tolerance:.0e}  {verdict}")
    failed = sum(not result.ok for result in results)
    print(f"{len(results) - failed} ok, {failed} failed")
    raise typer.Exit(1 if failed else 0)


def evaluate(
    pred: Annotated[Path, typer.Option(help="folder of predicted palette PNGs")],
    truth: Annotated[Path, typer.Option(help="folder of true palette PNGs")],
    classes: Annotated[str, typer.Option(help="voc, coco, world or a class FILE (.yaml)")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the scores here")] = None,
    split: Annotated[Path | None, typer.Option(help="score only the ids listed in this file, one a line")] = None,
) -> None:
    """Score predicted label maps against true ones, file by file of the same name."""
    from artifacts.tables import print_scores
    from excel_core.evaluation.metrics import evaluate_folders
    from excel_core.files import write_json
    from excel_core.text.class_sets import prompts_file
    from excel_core.text.prompts import load_prompts

    names = ("background", *load_prompts(prompts_file(classes)).class_names)
    if split is not None and not split.is_file():
        raise SettingError(f"--split {split}: there is no such file")
    ids = None if split is None else split.read_text().split()
    scores = evaluate_folders(pred, truth, names, ids=ids)
    print_scores(scores.to_json(), console())
    if json_file is not None:
        write_json(json_file, scores.to_json())


def figures(
    folder: Annotated[Path, typer.Argument(help="where to write PRESET_gallery.png and PRESET_results.md")],
    preset: Annotated[str, typer.Option(help="voc or demo")] = "demo",
    data: Data = None,
    store: Store = None,
    clip: Clip = None,
    method: Method = "reference",
    settings: Sets = None,
) -> None:
    """Write a finished run's pictures and tables, as README shows them."""
    from artifacts.readme_figures import write_figures
    from flows.settings import make_environment, make_run
    from tasks.chain import complete_outputs, report_work
    from tasks.report import build_view

    run = make_run(preset, method, settings or [], clip)
    place = make_environment(run, text(data), text(store), "cpu")
    outputs = complete_outputs(run, place, "report")
    if "report" not in outputs:
        raise SettingError(f"{place.store} holds no finished run of these settings; run it first")
    for path in write_figures(folder, build_view(report_work(run, place, outputs))):
        print(path)
