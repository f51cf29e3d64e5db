"""Rows of text: numbers as words, Markdown cells, two runs beside each other."""

import io

from rich.console import Console

from artifacts.comparison.tables import class_difference_rows, image_difference_rows, print_comparison, spec_difference_rows
from artifacts.history import run_rows
from artifacts.rows import duration, interval, markdown_table, size


def test_markdown_cells_are_escaped() -> None:
    table = markdown_table([{"class": "a|b", "x": "<b>*c*\n[d](e)"}, {"class": "held_out_1", "x": "_f_"}])
    assert table.splitlines() == [
        "| class | x |",
        "| --- | --- |",
        r"| a\|b | &lt;b&gt;\*c\* \[d\](e) |",
        r"| held_out_1 | \_f\_ |",
    ]
    assert markdown_table([]) == ""


def test_two_runs_beside_each_other() -> None:
    spec = [{"field": "cams.depth", "a": [1, 2], "b": None}]
    found = {"class": "kite", "a": 0.4, "b": 0.25, "difference": -0.15, "low": -0.2, "high": -0.1, "images": 12}
    open_ = {"low": None, "high": None, "images": 1}
    classes = [
        found,
        {"class": "cup", "a": 0.4, "b": 0.5, "difference": 0.1} | open_,
        {"class": "car", "a": None, "b": 0.1} | open_,
    ]
    images = [{"id": f"{n}", "a": 0.5, "b": 0.5 + n / 100, "difference": n / 100} for n in range(-20, 10)]
    assert spec_difference_rows(spec) == [{"field": "cams.depth", "A": "1, 2", "B": "–"}]
    rows = class_difference_rows(classes)
    assert [row["class"] for row in rows] == ["cup", "kite", "car"] and rows[0]["B − A"] == "+0.100"
    kite = {"class": "kite", "verdict": "A better", "A": "0.400", "B": "0.250", "B − A": "-0.150 [-0.200, -0.100]"}
    assert rows[1] == kite | {"images": "12"} and [row["verdict"] for row in rows[::2]] == ["–", "–"]
    assert [row["image"] for row in image_difference_rows(images, 2)] == ["-20", "-19"]
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    miou = {"a": 0.5, "b": 0.25, "difference": -0.25, "low": None, "high": None}
    comparison = {"a": "one", "b": "two", "spec": spec, "classes": classes, "images": images, "miou": miou}
    protocol = {"what": "a protocol"}
    comparison |= {
        "result": "key",
        "images_shared": 1234,
        "images_of_edited_truth": 5,
        "protocol": protocol,
        "protocol_a": protocol,
    }
    print_comparison(console, comparison)
    printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for text in (
        "A: one, B: two; key: mIoU 0.500 → 0.250, difference -0.250 over 1,234 shared images, "
        "without 5 whose true mask was edited in between;",
        "cams.depth",
        "+0.100",
    ):
        assert text in printed


def test_runs_are_listed_with_names_changed_settings_and_the_headline() -> None:
    changed = {"train.iterations": 4, "predict.scales": [0.7, 1.0], "knowledge.attributes": None, "a.b": 1, "a.c": 2}
    run = {
        "name": "calm-owl", "id": "2026", "pinned": True, "title": "excel demo", "changed": changed, "state": "complete",
        "seconds": 125.0, "built": 3, "outputs": 21, "build_seconds": None, "peak_host_bytes": 2**30, "peak_gpu_bytes": None,
        "headline": {"key": "segmentation.held_out_1.multi_scale_crf", "miou": 0.4321},
    }  # fmt: skip
    settings = "train.iterations=4\npredict.scales=[0.7, 1.0]\nknowledge.attributes=null\na.b=1\nand 1 more (--json)"
    assert run_rows([run]) == [
        {
            "run": "calm-owl\n2026\npinned", "flow": f"excel demo\n{settings}", "state": "complete", "took": "2 min 05 s",
            "built": "3 of 21", "to build": "–", "host GiB": "1.00", "GPU GiB": "–", "mIoU": "0.432",
            "of": "segmentation held_out_1 multi scale crf",
        }
    ]  # fmt: skip
    [plain] = run_rows([run | {"name": "", "pinned": False, "changed": {}, "headline": None}])
    assert (plain["run"], plain["flow"], plain["mIoU"], plain["of"]) == ("2026", "excel demo", "–", "")


def test_numbers_for_people() -> None:
    assert [duration(seconds) for seconds in (0.04, 59.96, 3599.6, 7385)] == ["0.0 s", "1 min 00 s", "1 h 00 min", "2 h 03 min"]
    assert [size(count) for count in (999, 1000, 4_200_000, 10**10)] == ["999 B", "1.0 kB", "4.2 MB", "10.0 GB"]
    assert interval({"miou": 0.5, "std": float("nan"), "low": 0.4, "high": None}, "miou") == "0.500"
