"""`--config FILE`: what is read and what is refused, and that the file of a run means the same run."""

import pytest
import yaml

from excel_core.config.presets import preset, with_settings
from excel_core.errors import SettingError
from flows.config_file import config_of_current_run, of_request, read_config
from flows.request import BenchmarkRequest, PaperRequest, RunRequest
from tests.conftest import SMALL_DEMO

OPTIONS = tuple(RunRequest.model_fields)


def _written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_settings_are_groups_dotted_names_or_texts(tmp_path):
    grouped = _written(
        tmp_path,
        "preset: demo\ngpus: 2\ndata: null\nsettings:\n  train: {iterations: 4, learning_rate: 1.0e-05}\n"
        "  predict.scales: [0.7, 1.0]\n  dataset: {prompts: 'a \"b\" é', max_images: null}\n",
    )
    assert read_config(grouped, OPTIONS) == {
        "preset": "demo",
        "gpus": 2,
        "settings": [
            "train.iterations=4", "train.learning_rate=1e-05", "predict.scales=[0.7, 1.0]",
            'dataset.prompts="a \\"b\\" é"', "dataset.max_images=null",
        ],
    }  # fmt: skip
    run = with_settings(preset("demo"), read_config(grouped, OPTIONS)["settings"])
    assert (run.train.iterations, run.train.learning_rate, run.predict.scales) == (4, 1e-5, (0.7, 1.0))
    assert run.dataset.prompts == 'a "b" é' and run.dataset.max_images is None
    texts = _written(tmp_path, "settings: [train.iterations=4, 'predict.scales=[1.0]']")
    assert read_config(texts, OPTIONS) == {"settings": ["train.iterations=4", "predict.scales=[1.0]"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prset: demo", "this command has no option 'prset'; valid: store, "),
        ("- preset", "expected options, name: value; got ['preset']"),
        ("", "expected options, name: value; got None"),
        ("preset: demo\npreset: voc", "line 2: 'preset' is there twice; leave one out"),
        ("settings: {train: {iterations: 4, iterations: 5}}", "line 1: 'iterations' is there twice"),
        ("settings: {train: 4}", "settings.train: expected its fields, field: value; got 4"),
        ("settings: 4", "settings: expected groups, stage: {field: value}, or a list of stage.field=value; got 4"),
        ("preset: [", "line 1: not readable: "),
        ("preset: &a demo\ndata: *a", "anchor"),
        ("data: !!python/object:os.system x", "tag"),
        ("data: 2020-13-01", "a value is not readable: month must be in 1..12"),
        ("data: " + "[" * 40, "more than 12 lists within each other"),
        ("data: " + "x" * 1_000_001, "at most 1,000,000 are read"),
    ],
)
def test_what_is_not_read_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(SettingError) as refused:
        read_config(_written(tmp_path, text), OPTIONS)
    assert str(refused.value).startswith(f"--config {tmp_path / 'mine.yaml'}: ") and message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"gone.yaml: cannot be read \(No such file"):
        read_config(tmp_path / "gone.yaml", OPTIONS)
    (tmp_path / "binary").write_bytes(b"\xe9\xff")
    with pytest.raises(SettingError, match="is no text in UTF-8"):
        read_config(tmp_path / "binary", OPTIONS)


@pytest.mark.parametrize(
    ("asked", "flow", "command"),
    [
        (RunRequest(preset="demo", settings=[*SMALL_DEMO, "train.batch_size=3", "train.batch_size=2"]), "excel", "excel run"),
        (
            RunRequest(
                preset="coco", data="d", gpus=2, device="cuda", method="clean", edits={"cams": {"calibration": {"depth": 3}}}
            ),
            "ablation",
            "excel ablation",
        ),
        (RunRequest(preset="voc", data="d", settings=["refine.crf={iterations: 2, enabled: true}"]), "cams", "excel run"),
        (
            BenchmarkRequest(preset="demo", methods=["excel", "maskclip"], seeds=2, settings=["weclip.train.iterations=5"]),
            "benchmark",
            "excel benchmark",
        ),
        (PaperRequest(table="table-1", data="d", coco="c", settings=["voc.train.iterations=9"]), "paper", "excel paper"),
    ],
)
def test_the_file_of_a_run_means_the_same_request(tmp_path, asked, flow, command):
    with of_request(asked):
        text = config_of_current_run(flow, tmp_path / "store")
    assert text.startswith(f"# Again: {command} --config") and ("alone" in text) == (flow == "cams")
    model = type(asked)
    again = model.checked(**read_config(_written(tmp_path, text), tuple(model.model_fields)))
    for name in model.model_fields.keys() - {"settings", "edits", "store", "data", "coco"}:
        assert getattr(again, name) == getattr(asked, name), name
    assert again.store == str(tmp_path / "store") and (again.data is None or again.data.endswith("/d"))
    if isinstance(asked, RunRequest):

        def spec(request):
            edits = yaml.safe_load(yaml.safe_dump(request.edits or {}))
            plain = preset(request.preset, request.method)
            return with_settings(plain.model_validate(_merged(plain.model_dump(), edits)), request.settings)

        assert spec(again) == spec(asked)


def _merged(fields, edits):
    return {name: _merged(fields[name], edits[name]) if isinstance(edits.get(name), dict) else edits.get(name, value)
            for name, value in fields.items()}  # fmt: skip


def test_outside_a_flow_there_is_no_file(tmp_path):
    assert config_of_current_run("excel", tmp_path) == ""


def test_the_command_line_wins_over_the_file(command_line, tmp_path):
    file = _written(tmp_path, "preset: demo\nstore: nowhere\nsettings: {report: {gallery_images: 7}, train: {iterations: 4}}\n")
    store = tmp_path / "store"
    code, out, _ = command_line(
        "plan", "--config", file, "--store", store, "-s", "train.dynamic_from=9", "--json", "--stage", "cams"
    )
    assert code == 0 and '"to_run": [' in out
    refused = command_line("plan", "-c", file, "--store", store, "-s", "train.iterations=-1")
    assert refused[0] == 2 and "train.iterations" in refused[2]
    refused = command_line("plan", "voc", "-c", file, "--store", store)
    assert refused[0] == 2 and "preset 'voc' needs a data folder" in refused[2]
    refused = command_line("demo", "-c", _written(tmp_path, "preset: voc\n"), "--store", store)
    assert refused[0] == 2 and "preset: is voc, this command is of demo" in refused[2]
    refused = command_line("run", "--store", store)
    assert (
        refused[0] == 2 and "PRESET is missing: name it, or a file that has it, --config FILE; valid: voc, coco" in refused[2]
    )
    refused = command_line("segment", "p.png", "-c", file)
    assert refused[0] == 2 and "this command has no option 'preset'; valid: clip, device, settings, store" in refused[2]
    assert not store.exists()
