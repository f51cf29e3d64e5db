"""`excel compare A B --page` and the flow `compare`: the page, its artifacts with a link, and refusals before work."""

import json
import re

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.compare import compare
from flows.stages import evaluate
from tests.conftest import SMALL_DEMO
from tests.flows.server import task_states

SETS = [setting for setting in SMALL_DEMO if setting.split(".")[0] in ("dataset", "refine", "shards")]
SETS += ["evaluate.kinds=[static]", "evaluate.ablation=false"]


@pytest.fixture(scope="module")
def store(tmp_path_factory, prefect_server):
    """A store with two evaluated runs, `first` and `second`, whose label maps differ."""
    path = tmp_path_factory.mktemp("compared") / "store"
    for name, more in (("first", []), ("second", ["refine.crf.iterations=1"])):
        evaluate.with_options(flow_run_name=f"compared-{name}")("demo", settings=[*SETS, *more], store=str(store_of(path)))
    return path


def store_of(path):
    path.mkdir(exist_ok=True)
    return path


def _artifacts(store):
    by_key = ArtifactFilter(key=ArtifactFilterKey(like_="excel-compare"))
    with get_client(sync_client=True) as client:
        return {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=by_key, limit=200)}


def test_the_flow_writes_the_page_and_shows_it(store):
    page = compare.with_options(flow_run_name="two runs")("compared-first", "compared-second", store=str(store))
    assert re.fullmatch(rf"{store}/compare/[0-9a-f]{{32}}/index.html", page)
    assert task_states("two runs") == {"compare": "Completed", **_published("two runs")}
    found = _artifacts(store)
    assert set(found) == {"excel-compare-demo", "excel-compare-classes-demo", "excel-compare-images-demo"}
    text = found["excel-compare-demo"].data
    assert page in text and "refine.crf.iterations" in text and "| class | B − A | verdict | A | B | images |" in text
    for name in ("classes", "images"):
        assert "](data:image/webp;base64," in found[f"excel-compare-{name}-demo"].data
    again = compare.with_options(flow_run_name="side by side again")("compared-first", store=str(store))
    assert again == page and task_states("side by side again")["compare"] == "Cached"  # `latest` is the second run


def _published(name):
    return {task: state for task, state in task_states(name).items() if task.startswith("artifacts")}


def test_the_command_writes_it_too(command_line, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command_line(
        "compare", "compared-first", "compared-second", "--page", "--store", store, "--json", tmp_path / "c.json"
    )
    assert code == 0, err
    (page,) = re.findall(r"^page: (.*index\.html)$", out, re.MULTILINE)
    assert page.startswith(str(store / "compare")) and json.loads((tmp_path / "c.json").read_text())["page"] == page
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]  # nothing in the current folder
    assert "refine.crf.iterations" in out and "mIoU of each image" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compared-first", "nobody", "--page"], "no run named 'nobody'; runs: "),
        (
            ["compared-first", "compared-second", "--page", "--result", "x"],
            "--result 'x': both runs have seeds.static.train.raw",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(arguments, message, command_line, store):
    code, _, err = command_line("compare", *arguments, "--store", store)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1


def test_a_run_that_was_not_evaluated_is_refused_and_those_that_serve_are_named(command_line, tmp_path, store, prefect_server):
    from flows.stages import dataset

    dataset.with_options(flow_run_name="compared-data")("demo", settings=SETS, store=str(store))
    code, _, err = command_line("compare", "compared-first", "compared-data", "--page", "--store", store)
    assert code == 2 and "has no evaluate; it has world, dataset" in err and "compared-second" in err


def test_the_form_explains_itself():
    properties = compare.parameters.model_dump()["properties"]
    assert list(properties) == ["a", "b", "result", "store"] and compare.parameters.required == ["a"]
    assert "newest complete run" in properties["b"]["description"] and "headline" in properties["result"]["description"]
