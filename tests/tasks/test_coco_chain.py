"""A COCO folder through the chain: masks are drawn for the scores alone."""

from excel_core.config.presets import preset, with_settings
from excel_core.files import read_json
from excel_core.stores import read_manifest
from tasks.engine.stage import RunEnvironment
from tests.core.coco_folder import document, write
from tests.pipeline_runs import follow

SMALL = [
    "clip.model=excel-tiny", "dataset.max_images=4", "cams.image_size=64", "predict.image_size=64", "predict.scales=[1.0]",
    "train.crop=64", "train.iterations=2", "train.batch_size=2", "train.dynamic_from=1", "train.segmenter.width=16",
    "refine.par.iterations=2", "describe.n=2", "knowledge.attributes=40", "report.gallery_images=2",
    "dataset.val_splits=[val2017]", "refine.crf.enabled=false", "predict.crf=false",
]  # fmt: skip


def test_coco_is_run_and_scored(tmp_path):
    data = tmp_path / "coco"
    write(data, "train2017", document(6))
    write(data, "val2017", document(6, "b"))
    outputs = follow(with_settings(preset("coco"), SMALL), RunEnvironment(store=tmp_path / "store", data=data), "report")
    manifest = read_manifest(outputs["dataset"].folder / "manifest.parquet")
    assert set(manifest["split"]) == {"train", "val2017"} and (manifest["error"] == "").all()
    metrics = read_json(outputs["evaluate"].folder / "metrics.json")
    assert metrics["skipped"] == {}
    assert {key.rpartition(".")[0] for key in metrics["results"]} == {
        "seeds.static.train", "seeds.lvc.train", "segmentation.val2017",
    }  # fmt: skip
    shown = next(iter(metrics["results"].values()))
    assert shown["protocol"]["images"] == 4 and 0 <= shown["miou"] <= 1 and len(shown["iou"]) == 81
