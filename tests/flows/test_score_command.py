"""`excel score` and `excel prompts new` as a user runs them: the commands of docs/prompt_edit.md on a real Prefect server."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from flows.score import score
from tasks.history.run_record import read_records
from tests.conftest import ROOT, SMALL_DEMO
from tests.flows.server import task_states
from tests.voc_folder import TRAIN, write_voc

PAGE = ROOT / "docs" / "prompt_edit.md"
# What makes the demo small, of the stages that these commands run; with enough scenes that an edit changes a label map.
SETS = [
    part
    for setting in (*SMALL_DEMO, "dataset.train_scenes=60")
    if setting.split(".")[0] in ("dataset", "refine", "shards")
    for part in ("--set", setting)
]


def _commands():
    """The lines of the page's block of commands, without comments."""
    (block,) = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


@pytest.fixture
def run_page(command_line, tmp_path, monkeypatch):
    """Run a line of the page in an empty folder; its runs are small ones → what it prints."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EXCEL_STORE", str(tmp_path / "store"))

    def run(program, *arguments):
        if program != "excel":
            subprocess.run([program, *arguments], check=True)
            return ""
        small = SETS if arguments[0] in ("score", "plan") else []
        code, out, err = command_line(*arguments, *small)
        assert code == 0, err
        return out

    return run


@pytest.mark.usefixtures("prefect_server")
def test_the_pages_commands_lead_from_the_edit_to_the_answer(run_page, command_line, tmp_path):
    commands = _commands()
    assert [words[0] for words in commands].count("sed") == 2 and len(commands) == 7
    first, new, _, _, check, plan, second = (run_page(*words) for words in commands)
    store = tmp_path / "store"
    assert "there is no earlier complete run of the same data" in first and "affinity+PAR+CRF" in first
    assert "mine.yaml: classes with their prompts" in new and "--set dataset.prompts=mine.yaml" in new
    assert sorted(path.name for path in Path().iterdir()) == ["mine.json", "mine.yaml"]
    assert "mine.yaml: 10 classes" in check and "mine.json: 10 classes, 20 descriptions each" in check
    runs = dict(re.findall(r"^ (\w+) +(yes|no) ", plan, re.MULTILINE))
    assert (runs["dataset"], runs["describe"], runs["score"]) == ("no", "yes", "yes") and "train" not in runs
    records = read_records(store)
    assert [record.flow for record in records] == ["score", "score"] and all(record.headline for record in records)
    path = Path(re.search(r"^comparison: (.*)$", second, re.MULTILINE)[1])
    change = json.loads(path.read_text())
    assert (change["before"], change["after"], path.stem) == (records[0].id, records[1].id, records[1].id)
    assert {entry["class"] for entry in change["classes"] if entry["edited"]} == {"kite", "house"}
    for words in ("Classes that were edited", "kite dragon", "texts +1 −1", "T_c moved", "by chance"):
        assert words in second
    assert f"images that changed most: {path.with_suffix('.png')}" in second and path.with_suffix(".png").is_file()
    _look_at_artifacts(records[1], change)
    states = task_states(records[1].flow_run_name)
    assert states["score"] == "Completed" and states["score (run before)"] == "Cached"
    assert [state for name, state in states.items() if name.startswith("compare")] == ["Completed"]
    again = command_line("score", "demo", "--against", "latest", "--json", tmp_path / "again.json", *SETS)
    assert again[0] == 0, again[2]
    against = json.loads((tmp_path / "again.json").read_text())
    assert (against["before"], against["after"]) == (records[1].id, read_records(store)[2].id)
    refused = command_line("score", "demo", "--against", "nobody", *SETS)
    assert refused[0] == 2 and "no run named 'nobody'; runs: " in refused[2] and len(read_records(store)) == 3


def _look_at_artifacts(record, change):
    """The scores, the class tables, and the picture with its notes are in the UI."""
    keys = [f"excel-score-{name}demo" for name in ("", "change-", "pictures-")]
    with get_client(sync_client=True) as client:
        by_key = ArtifactFilter(key=ArtifactFilterKey(any_=keys))
        artifacts = client.read_artifacts(artifact_filter=by_key, sort=ArtifactSort.CREATED_DESC)
    found = {artifact.key: artifact for artifact in artifacts if str(artifact.flow_run_id) == record.flow_run_id}
    assert set(found) == set(keys)
    rows = json.loads(found["excel-score-change-demo"].data)
    assert {row["class"] for row in rows} == {"kite", "house"} and list(rows[0])[:2] == ["class", "verdict"]
    assert len(json.loads(found["excel-score-demo"].data)) == 4
    page = found["excel-score-pictures-demo"].data
    assert page.startswith("![photo, label maps before and after") and "](data:image/" in page
    assert record.id in page and change["before"] in page


SMALL_VOC = (
    "dataset.partial=true", "dataset.train_split=train", "describe.n=2", "knowledge.attributes=8", "cams.image_size=48",
    "refine.par.iterations=2", "refine.crf.enabled=false",
)  # fmt: skip


@pytest.mark.usefixtures("prefect_server")
def test_a_photo_of_another_size_ends_the_comparison_and_not_the_score(command_line, tmp_path):
    """The label maps of the run before do not fit the mask any more."""
    data, sets = write_voc(tmp_path / "VOC2012"), [part for setting in SMALL_VOC for part in ("--set", setting)]
    arguments = ("voc", "--data", data, "--clip", "excel-tiny", "--store", tmp_path / "store", *sets)
    assert command_line("score", *arguments)[0] == 0
    for file in (data / "JPEGImages" / f"{TRAIN[0]}.jpg", data / "SegmentationClass" / f"{TRAIN[0]}.png"):
        with Image.open(file) as picture:
            picture.crop((0, 0, 40, 32)).save(file)
    code, out, err = command_line("score", *arguments)
    first, second = read_records(tmp_path / "store")
    assert code == 0, err
    assert "there is no earlier complete run" in out and second.state == "complete"
    assert f"not compared with run {first.id}: " in out and "the mask is 32 high and 40 wide, expected 48 high" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["voc"], "preset 'voc' needs a data folder: pass --data DIR"),
        (["demo", "--set", "dataset.prompts=mine.yaml"], "dataset.prompts: there is no 'mine.yaml'"),
        (["demo", "--against", "latest"], "no run named 'latest'; runs: none"),
        (["demos"], "unknown preset 'demos'; valid presets: voc, coco, photos, demo"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line_before_work(arguments, message, command_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command_line("score", *arguments, "--store", tmp_path / "store")
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1 and not (tmp_path / "store" / "records").exists()


def test_new_prompts_overwrite_nothing(command_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line("prompts", "new", "mine", "--from", "world")[0] == 0
    (tmp_path / "mine.json").write_text("mine")
    code, _, err = command_line("prompts", "new", "mine", "--from", "voc")
    assert code == 2 and "mine.json exists already, and nothing is overwritten" in err
    assert (tmp_path / "mine.json").read_text() == "mine" and "name: mine" in (tmp_path / "mine.yaml").read_text()


def test_the_flows_form_names_the_run_to_compare_with():
    properties = score.parameters.model_dump()["properties"]
    assert list(properties)[:2] == ["preset", "against"] and "newest complete run" in properties["against"]["description"]
