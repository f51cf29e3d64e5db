"""The signature of all chain flows: its schema, and what its values become."""

import re

import pytest
import torch
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError as ServerRefusal
from prefect.utilities.schema_tools.validation import validate
from pydantic import ValidationError
from typer.testing import CliRunner

from excel_core.config import RunSpec, Spec
from excel_core.config.presets import preset, with_edits
from excel_core.errors import PromptError, SettingError
from flows import parameters, stages
from flows.ablation import ablation, upgrades
from flows.benchmark import benchmark
from flows.cli import app
from flows.excel import excel
from flows.paper import paper
from flows.parameters import Edits
from flows.request import RunRequest

FLOWS = [excel, ablation, upgrades, *(getattr(stages, name) for name in stages.__all__)]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_all_flows_have_one_schema(flow):
    """Those that train on their own behalf have one parameter more."""
    logged = flow.name in ("excel", "train")
    assert flow.parameters == (excel if logged else ablation).parameters and flow.description
    assert list(flow.parameters.properties) == [
        "preset", "method", "data", "store", "clip", "device", "gpus", "runner", *(["log"] if logged else []), "settings",
        "edits",
    ]  # fmt: skip


def _fields(schema):
    """(place, schema) of every parameter and of every field of every group of edits."""
    yield from schema.properties.items()
    for group, definition in schema.definitions.items():
        assert definition["additionalProperties"] is False and definition["description"], group
        yield from ((f"{group}.{name}", field) for name, field in definition["properties"].items())


def test_every_field_explains_itself():
    for place, field in _fields(excel.parameters):
        assert len(field.get("description", "")) > 8 and "None (" not in field["description"], place


def test_the_papers_form_explains_itself():
    assert list(paper.parameters.properties) == [
        "table", "data", "coco", "checkpoint", "limit", "method", "store", "clip", "device", "gpus", "runner", "settings",
    ]  # fmt: skip
    for place, field in _fields(paper.parameters):
        assert len(field.get("description", "")) > 8, place
        for leaf in _leaves(field):
            assert leaf.get("type") != "integer" or leaf["minimum"] == 1, place
    assert paper.parameters.properties["table"]["enum"] == [*(f"table-{number}" for number in range(1, 8)), "figures"]
    for wrong in ({"table": "table-8"}, {"limit": 0}, {"data": ""}, {"settings": ["x"]}):
        with pytest.raises(ParameterTypeError):
            paper.validate_parameters(wrong)


def test_the_benchmarks_form_explains_itself():
    assert list(benchmark.parameters.properties) == [
        "preset", "methods", "seeds", "data", "limit", "store", "clip", "device", "gpus", "runner", "settings", "edits",
    ]  # fmt: skip
    for place, field in _fields(benchmark.parameters):
        assert field.get("description"), place
    methods = benchmark.parameters.properties["methods"]
    assert methods["items"]["enum"] == excel.parameters.properties["method"]["enum"] and methods["default"] == []
    for wrong in ({"seeds": 0}, {"seeds": 21}, {"methods": ["clipes"]}, {"limit": 0}, {"method": "excel"}):
        with pytest.raises((ParameterTypeError, ValidationError, TypeError)):
            benchmark.validate_parameters(wrong)


def _refusal(flow, parameters):
    """Why Prefect's server makes no run of these parameters; "" where it makes one."""
    try:
        validate(parameters, parameter_schema(flow).model_dump_for_openapi(), raise_on_error=True)
    except ServerRefusal as error:
        return str(error)
    return ""


@pytest.mark.parametrize("flow", [*FLOWS, benchmark], ids=lambda flow: flow.name)
def test_a_deployment_asks_for_data_but_python_does_not(flow):
    assert flow.parameters == parameter_schema(flow)  # what `prefect deploy` reads
    assert "'data' is a required property" in _refusal(flow, {}) and "is not of type" in _refusal(flow, {"data": None})
    assert _refusal(flow, {"data": "/data"}) == "" and "preset" in flow.validate_parameters({"preset": "demo"})


@pytest.mark.parametrize(
    ("flow", "good", "wrong"),
    [
        (
            excel,
            "train.segmenter.width = 3",
            ["train.iteration=3", "train.segmenter=3", "preset=voc", "voc.train.crop=64", "x"],
        ),
        (benchmark, "clip_es.refine.crf.enabled=false", ["clipes.refine.crf.enabled=false", "clip_es.refine.crf=false"]),
        (paper, "coco.train.iterations=3", ["photos.train.iterations=3", "coco.train.iteration=3", "paper.limit=3"]),
    ],
)
def test_a_setting_that_there_is_not_is_refused_alone_and_in_a_list(flow, good, wrong):
    for plain in (good, "refine.par.iterations=3"):
        assert _refusal(flow, {"data": "d", "settings": plain}) == _refusal(flow, {"data": "d", "settings": [plain]}) == ""
    for setting in wrong:
        for given in (setting, [good, setting]):
            refusal = _refusal(flow, {"data": "d", "settings": given})
            assert f"{setting!r} does not match" in refusal and "|iterations|" in refusal


def test_one_setting_needs_no_list():
    assert RunRequest.checked(settings="train.iterations=3").settings == ["train.iterations=3"]
    assert RunRequest(preset="demo", settings="train.crop=64").spec().train.crop == 64
    assert excel.validate_parameters({"settings": "train.iterations=3"})["settings"] == ["train.iterations=3"]
    with pytest.raises(SettingError, match="expected stage.field=value"):
        RunRequest.checked(settings="iterations")


def test_every_field_can_be_set_and_no_other(tmp_path):
    """The names in the schema are those of the specs."""
    pattern = re.compile(excel.parameters.properties["settings"]["anyOf"][1]["pattern"])

    def fields(spec, path=""):
        for name, field in spec.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, Spec):
                yield from fields(inner, f"{path}{name}.")
            else:
                yield f"{path}{name}"

    names = [name for name in fields(RunSpec) if name.partition(".")[0] not in ("preset", "method", "paper", "benchmark")]
    assert len(names) > 100 and all(pattern.search(f"{name}=1") for name in names)
    assert not any(pattern.search(f"{name}x=1") or pattern.search(f"x{name}=1") for name in names)


def test_a_class_of_ones_own_that_nobody_describes_is_refused_before_work_starts(tmp_path):
    (tmp_path / "labels.csv").write_text("image,labels\na,axolotl\n")
    with pytest.raises(PromptError, match="no bundled descriptions of axolotl"):
        RunRequest(preset="photos", data=str(tmp_path)).resolve()


def _leaves(schema):
    """The schema's alternatives and items, down to plain types."""
    inner = [*schema.get("anyOf", []), *schema.get("prefixItems", []), *([schema["items"]] if "items" in schema else [])]
    return [leaf for part in inner for leaf in _leaves(part)] if inner else [schema]


def test_every_number_has_a_bound_and_every_choice_its_values():
    for place, field in _fields(excel.parameters):
        for leaf in _leaves(field):
            if leaf.get("type") in ("integer", "number"):
                assert "minimum" in leaf or "exclusiveMinimum" in leaf, place
    train = excel.parameters.definitions["TrainEdits"]["properties"]
    assert {"type": "integer", "minimum": 1} in train["iterations"]["anyOf"]
    assert ["labelled", "ignored"] in [part.get("enum") for part in train["padding"]["anyOf"]]


def test_edits_mirror_the_specs():
    def names(model):
        kinds = {name: field.annotation for name, field in model.model_fields.items()}
        return {name: names(k) if isinstance(k, type) and issubclass(k, Spec) else None for name, k in kinds.items()}

    def edit_names(schema, definitions):
        found = {}
        for name, field in schema["properties"].items():
            ref = next((part["$ref"] for part in field["anyOf"] if "$ref" in part), None)
            found[name] = ref and edit_names(definitions[ref.rpartition("/")[2]], definitions)
        return found

    schema = Edits.model_json_schema()
    expected = {name: value for name, value in names(RunSpec).items() if name not in ("preset", "method", "paper", "benchmark")}
    assert edit_names(schema, schema["$defs"]) == expected


@pytest.mark.parametrize(
    "edits",
    [{"train": {"iterations": 0}}, {"train": {"padding": "none"}}, {"trian": {}}, {"refine": {"par": {"iteration": 1}}}],
)
def test_wrong_edits_are_refused(edits):
    with pytest.raises(ValidationError):
        Edits(**edits)


def test_edits_then_settings_then_clip():
    edits = {"train": {"iterations": 7, "segmenter": {"width": 16}}, "clip": {"model": "a:b"}}
    run = RunRequest(preset="demo", method="paper", settings=["train.iterations=8"], clip="excel-tiny", edits=edits).spec()
    assert (run.train.iterations, run.train.segmenter.width, run.clip.model) == (8, 16, "excel-tiny")
    assert run.train.crop == 128 and run.cams.surgery is False


def test_empty_edits_change_nothing():
    edits = Edits(train={"iterations": None, "segmenter": {}}, cams=None).model_dump(exclude_none=True)
    assert with_edits(preset("demo"), edits) == preset("demo")
    with pytest.raises(SettingError, match=r"valid fields: dataset, describe"):
        with_edits(preset("demo"), {"preset": "voc"})


@pytest.mark.parametrize("runner", ["sequential", "dask", "dask:tcp://10.0.0.1:8786", "dask:tcp://a-b.c:1"])
def test_runners(runner):
    assert RunRequest.checked(runner=runner).runner == runner
    assert excel.validate_parameters({"runner": runner})["runner"] == runner


@pytest.mark.parametrize("runner", ["", "threads", "dask:", "dask:tcp://h", "dask:tcp://h:x", "dask:tcp://h:1\n", "dask "])
def test_wrong_runners(runner):
    with pytest.raises(SettingError, match="valid: sequential, dask, dask:tcp://HOST:PORT"):
        RunRequest.checked(runner=runner)
    with pytest.raises(ParameterTypeError):
        excel.validate_parameters({"runner": runner})


def test_the_command_line_refuses_a_wrong_runner(tmp_path):
    ran = CliRunner().invoke(app, ["demo", "--runner", "threads", "--store", str(tmp_path / "s")])
    assert isinstance(ran.exception, SettingError) and "valid: sequential, dask" in str(ran.exception)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("gpus", "device", "message"),
    [
        (0, "cpu", "--gpus 0: expected 1 to 64"),
        (65, "cpu", "--gpus 65: expected 1 to 64"),
        (3, "cpu", "train.batch_size=4 must be a multiple of the 3 training processes"),
        (4, "cuda", "--gpus 4: this machine has 2; use at most that many"),
    ],
)
def test_wrong_numbers_of_gpus(gpus, device, message, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    given = {"preset": "demo", "settings": ["train.batch_size=4"], "store": str(tmp_path), "device": device}
    with pytest.raises(SettingError, match=message):
        RunRequest.checked(**given, gpus=gpus).resolve()
    assert RunRequest(**given, gpus=2).resolve().environment.processes == 2
    if not 1 <= gpus <= 64:
        with pytest.raises(ParameterTypeError):
            excel.validate_parameters({"gpus": gpus})


def test_values_reach_the_body(tmp_path):
    requests = []

    def body(request):
        """Looks."""
        requests.append(request)
        return "path"

    flow = parameters.chain_flow("look")(body)
    edits = flow.validate_parameters({"edits": {"train": {"iterations": 3}}})["edits"]
    assert flow.fn("demo", store=str(tmp_path), gpus=2, runner="dask", settings=["train.crop=64"], edits=edits) == "path"
    run, environment = requests[0].resolve()
    assert (run.train.iterations, run.train.crop) == (3, 64)
    assert environment.store == tmp_path and requests[0].runner == "dask" and environment.processes == 2


def test_the_form_refuses_what_is_no_tracker():
    for right in ("tensorboard:logs", "mlflow:http://127.0.0.1:5000", "wandb:team/excel"):
        excel.validate_parameters({"log": right, "data": "x"})
    for wrong in ("comet:x", "tensorboard", "mlflow: ", "tensorboard:", ""):
        with pytest.raises(ParameterTypeError):
            excel.validate_parameters({"log": wrong, "data": "x"})
