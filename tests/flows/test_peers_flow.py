"""`excel run demo --method clip_es` and a stage's flow with a method, on a real Prefect server."""

import json
import re
from pathlib import Path

import pytest

from excel_core.errors import SettingError
from flows import stages
from flows.ablation import ablation
from flows.excel import excel
from tests.flows.server import task_states

pytestmark = pytest.mark.usefixtures("prefect_server")

SMALL = ["dataset.train_scenes=6", "dataset.val_scenes=2", "shards.images=8", "report.gallery_images=1"]


@pytest.fixture(scope="module")
def store(tmp_path_factory, prefect_server):
    """A store in which the method ran on a few scenes."""
    path = tmp_path_factory.mktemp("peers") / "store"
    page = excel.with_options(flow_run_name="clip-es")("demo", method="clip_es", settings=SMALL, store=str(path))
    assert Path(page).is_file()
    return path


def test_the_chain_has_no_training(store):
    names = {re.split("[ -]", name)[0] for name in task_states("clip-es")}
    assert {"cams", "refine", "evaluate", "report", "artifacts"} <= names
    assert not {"train", "dynamic", "predict"} & names
    [record] = [json.loads(path.read_text()) for path in (store / "records").glob("*.json")]
    assert record["spec"]["method"] == "clip_es:reference" and "seeds.static.train.crf" in record["headline"]


def test_a_stages_flow_takes_the_method(store):
    folder = stages.refine("demo", method="clip_es:clean", settings=SMALL, store=str(store))
    assert {path.name for path in (Path(folder) / "steps").iterdir()} == {"raw", "affinity", "crf"}
    assert len(list((Path(folder) / "SegmentationClassPseudo").glob("*.png"))) == 6


def test_a_stage_that_the_method_does_not_have_is_refused(store):
    with pytest.raises(SettingError, match="clip_es:reference trains no segmenter .*which predict needs; stages that it has"):
        stages.predict("demo", method="clip_es", settings=SMALL, store=str(store))
    with pytest.raises(SettingError, match="the ablation is about parts of the method excel"):
        ablation("demo", method="clip_es", settings=SMALL, store=str(store))
