"""The command line as a user meets it: other processes, their output and exit status."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from excel_core.datasets.palette import save_labels_png
from tests.conftest import ROOT, SMALL_DEMO
from tests.parity.golden_set import write_golden_set

EXCEL = str(Path(sys.executable).with_name("excel"))


def _excel(*arguments, check=True, env=()):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "PREFECT_HOME"))}
    ran = subprocess.run(
        [EXCEL, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, env=clean | dict(env), timeout=500
    )
    assert not check or ran.returncode == 0, ran.stdout + ran.stderr
    return ran


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(store, finished process) of a small `excel demo`."""
    store = tmp_path_factory.mktemp("cli") / "store"
    return store, _excel("demo", "--store", store, *[part for s in SMALL_DEMO for part in ("--set", s)])


def test_demo_ends_with_its_metrics(demo):
    store, ran = demo
    lines = ran.stdout.strip().splitlines()
    assert lines[-1].startswith("metrics: ")
    metrics = json.loads(Path(lines[-1].removeprefix("metrics: ")).read_text(encoding="utf-8"))
    assert metrics["format"] == "excel-metrics/1" and metrics["clip"] == "excel-tiny"
    assert "SVC + TSE + LVC" in ran.stdout and "server start" in ran.stdout
    page = next(line for line in lines if line.startswith("report: ")).removeprefix("report: ")
    assert Path(page).is_file() and str(store) in page
    assert "train: 4/4" in ran.stderr


def test_demo_again_runs_nothing(demo):
    store, first = demo
    again = _excel("demo", "--store", store, *[part for s in SMALL_DEMO for part in ("--set", s)])
    assert again.stdout.startswith("every stage is complete; nothing to run")
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]


def test_a_run_is_repeated_by_the_file_that_it_left(demo, tmp_path):
    store, first = demo
    (file,) = (store / "runs" / "by-name").glob("*/config.yaml")
    assert f"again: excel run --config {file}" in first.stdout and f"report: {file.parent}/report/index.html" in first.stdout
    again = _excel("run", "--config", file, "--json", tmp_path / "run.json")
    assert again.stdout.startswith("every stage is complete; nothing to run")
    result = json.loads((tmp_path / "run.json").read_text())
    assert result["run"]["config"] == str(file) and result["metrics"]["results"]
    assert (file.parent / "train").samefile(result["outputs"]["train"])


def test_what_there_is_and_what_would_run(demo):
    store, _ = demo
    small = [part for s in SMALL_DEMO for part in ("--set", s)]
    assert "nothing to run: every stage is complete" in _excel("plan", "demo", "--store", store, *small).stdout
    planned = _excel("plan", "demo", "--store", store, *small, "--set", "report.gallery_images=1").stdout
    assert "1 of 21 stages run" in planned and "report.gallery_images: 2 → 1" in planned
    listed = _excel("runs", "--store", store).stdout
    assert "excel demo" in listed and "complete" in listed and re.search(r"to build +host GiB +GPU GiB", listed)
    assert re.search(r" s +\d+\.\d\d +– +\d", listed)
    compared = _excel("compare", "latest", "latest", "--store", store, "--json", store / "c.json").stdout
    assert "difference +0.000" in " ".join(compared.split()) and json.loads((store / "c.json").read_text())["spec"] == []


def test_nothing_is_removed_that_a_run_uses_and_nothing_without_a_word(demo, tmp_path):
    store = shutil.copytree(demo[0], tmp_path / "store")
    assert "every output belongs to a kept run" in _excel("gc", "--store", store).stdout
    assert "0 damaged" in _excel("verify", "--store", store).stdout
    next((store / "records").glob("*.json")).unlink()
    shown = _excel("gc", "--store", store).stdout
    assert "nothing was removed; pass --yes" in shown and "cams-parts/" in shown
    _excel("gc", "--store", store, "--yes")
    assert not list(store.glob("*/*/stage.json"))


def test_figures_of_a_finished_run(demo, tmp_path):
    small = [part for s in SMALL_DEMO for part in ("--set", s)]
    _excel("figures", tmp_path, "--store", demo[0], *small)
    assert (tmp_path / "demo_gallery.png").read_bytes().startswith(b"\x89PNG")
    assert "| SVC + TSE + LVC |" in (tmp_path / "demo_results.md").read_text()
    ran = _excel("figures", tmp_path, "--store", tmp_path / "other", *small, check=False)
    assert ran.returncode == 2 and "no finished run of these settings" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "vco"], "unknown preset 'vco'; valid presets: voc, coco, photos, demo"),
        (["run", "voc"], "preset 'voc' needs a data folder: pass --data DIR"),
        (["run", "voc", "--data", "nowhere"], "data folder 'nowhere' does not exist"),
        (["run", "voc", "--data", "README.md"], "data folder 'README.md' is a file; name the folder that it is in"),
        (
            ["run", "demo", "--method", "best"],
            "valid methods: excel[:reference|paper|clean], maskclip[:reference|clean], clip_es",
        ),
        (["run", "demo", "--device", "tpu"], "unknown device 'tpu'; valid: cpu, cuda, mps"),
        (["run", "demo", "--clip", "ViT-B-16"], "names no weights; write ViT-B-16:TAG or ViT-B-16:FILE"),
        (["demo", "--gpus", "3", "--set", "train.batch_size=4"], "batch_size=4 must be a multiple of the 3 training processes"),
        (["demo", "--set", "train.epochs=3"], "unknown field 'train.epochs'; valid fields: train.enabled"),
        (["demo", "--set", "dataset.prompts=vok"], "there is no 'vok'; valid: coco, voc, world"),
        (["run", "voc", "--data", "."], "not a data set in VOC layout: looked for JPEGImages/"),
        (["run", "photos", "--data", "docs"], "looked for labels.csv (image,labels) or one folder of photos per class"),
        (["run", "coco", "--data", "."], "not COCO as downloaded: looked for annotations/instances_*.json; found"),
        (
            ["demo", "--log", "comet:x"],
            "--log 'comet': expected tensorboard:FOLDER, mlflow:FOLDER, mlflow:http://HOST:PORT or",
        ),
        (["run", "demo", "--log", "tensorboard:README.md/x"], "README.md is a file; name a folder"),
        (["parity", "nothing"], "parity needs PREFIX.npz"),
        (["plan", "demo", "--stage", "cam"], "--stage 'cam': valid stages: world, dataset"),
        (["compare", "a", "b"], "no run named 'a'; runs: none"),
    ],
)
def test_wrong_words_are_one_message(arguments, message, tmp_path):
    ran = _excel(*arguments, check=False, env={"EXCEL_STORE": str(tmp_path / "s")}.items())
    assert ran.returncode == 2 and ran.stderr.startswith("error: ") and "Traceback" not in ran.stderr
    assert message in " ".join(ran.stderr.split()) and not (tmp_path / "s").exists()


def test_a_wrong_data_folder_is_one_message(tmp_path):
    (tmp_path / "photos").mkdir()
    ran = _excel("run", "voc", "--data", tmp_path / "photos", "--store", tmp_path / "s", "--clip", "excel-tiny", check=False)
    assert ran.returncode == 2 and "Traceback" not in ran.stderr
    assert "JPEGImages" in ran.stderr and "found an empty folder" in ran.stderr


def test_photos_that_are_not_read_are_one_message(tmp_path):
    """Before a server is started for the run."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(b"\0\0\0\x18ftypavif" + bytes(100))  # as an app renames them
    (tmp_path / "photos" / "labels.csv").write_text("image,labels\n0.jpg,dog\n1.jpg,dog\n2.jpg,cat\n")
    arguments = ("--data", tmp_path / "photos", "--store", tmp_path / "s", "--clip", "excel-tiny")
    ran = _excel("run", "photos", *arguments, check=False)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and not (tmp_path / "s").exists()
    assert "3 of 3 photos cannot be used, 20.0% are tolerated" in ran.stderr and "0.jpg: AVIF is not read" in ran.stderr


def test_evaluate_scores_folders(tmp_path):
    truth = np.zeros((10, 10), dtype=np.uint8)
    truth[:5] = 1
    prediction = np.zeros((10, 10), dtype=np.uint8)
    prediction[:4] = 1
    save_labels_png(tmp_path / "truth" / "a.png", truth)
    save_labels_png(tmp_path / "pred" / "a.png", prediction)
    _excel(
        *("evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "truth"),
        *("--classes", "world", "--json", tmp_path / "s.json"),
    )
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["iou"]["house"] == pytest.approx(0.8) and scores["recall"]["house"] == pytest.approx(0.8)
    assert scores["precision"]["house"] == 1.0 and scores["miou"] == pytest.approx((0.8 + 50 / 60) / 2)
    assert scores["iou"]["tree"] is None
    (tmp_path / "pred" / "a.png").unlink()
    ran = _excel("evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "truth", "--classes", "world", check=False)
    assert ran.returncode == 2 and "predictions are missing: a" in ran.stderr


def test_parity_prints_a_line_a_key_and_fails_on_a_difference(tmp_path):
    prefix = write_golden_set(tmp_path)
    ran = _excel("parity", prefix)
    assert ran.stdout.count(" ok\n") == 26 and ran.stdout.endswith("26 ok, 0 failed\n")
    with np.load(prefix.with_suffix(".npz")) as archive:
        arrays = dict(archive)
    arrays["static_cams"] = arrays["static_cams"] + 0.01
    np.savez(prefix.with_suffix(".npz"), **arrays)
    ran = _excel("parity", prefix, check=False)
    assert ran.returncode == 1 and ran.stdout.count("FAIL") == 1 and "25 ok, 1 failed" in ran.stdout
