"""`excel export`: a run's label maps or its trained segmenter in another tool's format."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Store

__all__ = ["export"]

# Spelled out, so that `--help` loads nothing; tasks.photos.export refuses any other.
FORMATS = "palette, binary, coco, cvat, voc-submission (label maps); safetensors, onnx (the trained segmenter)"


def export(
    run: Annotated[str, typer.Argument(help="a run's id or its beginning, its Prefect name, or `latest`")],
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
    force: Annotated[bool, typer.Option("--force", help="replace an earlier export in --out")] = False,
    store: Store = None,
) -> None:
    """Write a run's label maps, or its trained segmenter, in another tool's format. Nothing half-written is left."""
    from flows.local.state import store_folder
    from tasks.history.run_record import find_record
    from tasks.photos.export import Wanted, export_run

    record = find_record(store_folder(store), run)
    about = export_run(record, Wanted(file_format, what, variant, split, force), out)
    if "images" in about:
        which = " ".join(about[key] for key in ("what", "variant", "split") if key in about)
        print(f"{about['images']} label maps ({which}) of run {record.id}")
    if "supervision" in about:
        print(f"learnt from {about['supervision']}")
    if check := about.get("check"):
        print(
            f"ONNX against PyTorch on {check['images']} images: greatest difference of a logit {check['difference']:.1e} "
            f"(tolerance {check['tolerance']:.0e}), {check['equal']:.3%} of labels equal"
        )
    files = about["holds"]
    print(out / files[0] if len(files) == 1 else out)
