"""`excel doctor`: is a downloaded data set complete and sound?"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import console
from flows.cli.output import give

__all__ = ["doctor"]


def doctor(
    layout: Annotated[str, typer.Argument(help="voc, coco or photos")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the data folder, as --data takes it")],
    quick: Annotated[
        bool, typer.Option("--quick", help="headers alone: finds no truncated file and no odd mask value")
    ] = False,
    classes: Annotated[str | None, typer.Option(help="class file, where it is not the layout's", show_default=False)] = None,
) -> None:
    """Look at every file of a data set: counts, missing and mismatched files, masks, and what to download. Exit 1 where a
    run could not use it."""
    from artifacts.rows import print_rows
    from excel_core.config.presets import preset
    from excel_core.datasets.doctor.checks import Check, can_run
    from excel_core.datasets.doctor.coco import examine_coco
    from excel_core.datasets.doctor.links import examine_links
    from excel_core.datasets.doctor.photos import examine_photos
    from excel_core.datasets.doctor.voc import PRESET_SPLITS, examine_voc
    from excel_core.errors import SettingError
    from excel_core.text.class_sets import class_set, prompts_file
    from excel_core.text.prompts import load_prompts

    examine_own_photos = partial(examine_photos, spec=preset("photos").dataset)
    examiners: dict[str, Callable[..., list[Check]]] = {"voc": examine_voc, "coco": examine_coco, "photos": examine_own_photos}
    examine = examiners.get(layout)
    if examine is None:
        raise SettingError(f"unknown layout {layout!r}; valid: voc, coco, photos")
    checks = [examine_links(folder, preset(layout).dataset.layout)]
    if can_run(checks):  # the rest reads the files
        if layout == "photos" and classes is None:
            names = class_set(preset("photos"), folder).class_names
        else:
            names = load_prompts(prompts_file(classes or layout)).class_names
        checks += examine(folder, names, quick=quick, progress=_tell)
    rows = [{"check": check.name, "state": check.state, "found": check.found} for check in checks]
    print_rows(console(), f"{layout} in {folder}", rows, [], ["check", "state", "found"])
    for check in checks:
        if check.state != "ok":
            print(
                "\n".join(filter(None, [f"{check.state}: {check.name}: {check.advice}", *(f"    {e}" for e in check.examples)]))
            )
    other_settings = any(check.name == PRESET_SPLITS and check.state != "ok" for check in checks)
    verdict = f"a run can use it{', with the settings that the note names' if other_settings else ''}"
    print(f"{folder}: {verdict if can_run(checks) else 'a run cannot use it as it is'}")
    give({"layout": layout, "usable": can_run(checks), "checks": [asdict(check) for check in checks]})
    raise typer.Exit(0 if can_run(checks) else 1)


def _tell(done: int) -> None:
    from tasks.engine.progress import say

    if done % 2000 == 0:
        say(f"doctor: {done} images")
