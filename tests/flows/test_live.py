"""Live tools over the labeller: its threshold, a backend for Label Studio, a function for CVAT, a page in Gradio."""

import base64
import gc
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from artifacts.drawing import STEP_NAMES, fit_image, fit_labels, overlay_labels
from excel_core.datasets.palette import VOC_PALETTE, load_labels_png
from excel_core.errors import SettingError
from excel_core.exports.brush_runs import decode_brush
from flows.live.label_studio import Interface, backend, read_interface
from flows.live.labeller import background_power
from flows.live.page import VALUES_SIDE, show_photo
from tests.flows.live_backend import CONFIG, data_address, served


def test_a_threshold_is_where_cam_and_background_tie():
    for threshold in (0.05, 0.3, 0.5, 0.95):
        assert (1 - threshold) ** background_power(threshold) == pytest.approx(threshold)
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(SettingError, match=r"expected a number from 0.05 to 0.95"):
            background_power(wrong)


def test_a_higher_threshold_leaves_fewer_pixels(made, scene):
    pixels = [(made.look(scene.image, scene.labels, threshold).steps["raw"] > 0).sum() for threshold in (0.2, 0.5, 0.8)]
    assert pixels[0] > pixels[1] > pixels[2] > 0
    labels = made.look(scene.image, scene.labels).labels()
    assert labels.shape == scene.mask.shape and set(np.unique(labels)) <= {0, 1, 2}
    with pytest.raises(SettingError, match="expected 1 to 254 names"):
        made.look(scene.image, ())


def test_the_backend_labels_what_label_studio_asks_for(made, scene):
    config = CONFIG.format(*scene.labels)
    with served(backend(made, None)) as address:
        assert httpx.get(f"{address}/health").json()["status"] == "UP"
        assert httpx.post(f"{address}/setup", json={"schema": config}).status_code == 200
        tasks = [{"id": 1, "data": {"image": data_address(scene.image)}}, {"id": 2, "data": {"image": "/data/upload/1.png"}}]
        answer = httpx.post(f"{address}/predict", json={"tasks": tasks, "label_config": config}, timeout=120).json()
    first, second = answer["results"]
    assert second["result"] == [] and "start with --label-studio" in second["error"]
    labels = made.look(scene.image, scene.labels).labels()
    for found in first["result"]:
        name = found["value"]["brushlabels"][0]
        assert (found["from_name"], found["to_name"], found["type"]) == ("brush", "photo", "brushlabels")
        assert (decode_brush(found["value"]["rle"], 128, 128) == (labels == scene.labels.index(name) + 1)).all()
    assert {found["value"]["brushlabels"][0] for found in first["result"]} == {
        scene.labels[v - 1] for v in np.unique(labels) if v
    }


def test_photos_come_from_that_label_studio_alone(made, scene, monkeypatch):
    """A task's address must not make the backend read other places, nor send its key there."""
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    asked = []

    async def photo(request):
        asked.append(request.headers.get("authorization"))
        return Response(base64.b64decode(data_address(scene.image).partition(",")[2]))

    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "studio-key")
    with served(Starlette(routes=[Route("/data/upload/1.png", photo)])) as studio, served(backend(made, studio)) as address:
        places = ["/data/upload/1.png", studio.replace("127.0.0.1", "localhost") + "/data/upload/1.png", "file:///etc/passwd"]
        places += ["//127.0.0.1:1/x.png", "/data/upload/none.png"]
        tasks = [{"data": {"image": place}} for place in places]
        config = CONFIG.format(*scene.labels)
        results = httpx.post(f"{address}/predict", json={"tasks": tasks, "label_config": config}, timeout=120).json()["results"]
    assert results[0]["result"] and asked == ["Token studio-key"]
    assert [("error" in result, bool(result["result"])) for result in results[1:]] == [(True, False)] * 4
    assert all("the only place that photos are fetched from" in result["error"] for result in results[1:4])
    assert "404" in results[4]["error"] and "studio-key" not in str(results)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "is no JSON object"),
        (b"{", "is no JSON"),
        (b'{"tasks": [], "label_config": "<View>"}', "is no XML that can be read"),
        (b'{"tasks": [], "label_config": "<View/>"}', "needs <BrushLabels toName"),
        (
            b'{"tasks": [], "label_config": "<!DOCTYPE x [<!ENTITY e SYSTEM \\"file:///etc/passwd\\">]><View>&e;</View>"}',
            "no XML",
        ),
    ],
)
def test_what_is_no_request_is_refused(made, body, message):
    with served(backend(made, None)) as address:
        answer = httpx.post(f"{address}/predict", content=body)
    assert answer.status_code == 400 and message in answer.json()["error"]


def test_the_interface_names_brush_image_and_classes():
    assert read_interface(CONFIG.format("dog", "sofa")) == Interface("brush", "photo", "image", ("dog", "sofa"))


def test_cvats_function_gives_masks_that_cvat_reads(made, scene, capsys):
    pytest.importorskip("cvat_sdk.auto_annotation")
    from cvat_sdk.auto_annotation import DetectionFunctionContext
    from cvat_sdk.masks import decode_mask

    from flows.live.cvat_function import MaskFunction

    class Context(DetectionFunctionContext):
        frame_name, conf_threshold, conv_mask_to_poly = "a.png", None, False

    function = MaskFunction(made, tuple(scene.labels))
    assert [label.name for label in function.spec.labels] == list(scene.labels)
    labels = made.look(scene.image, scene.labels).labels()
    shapes = function.detect(Context(), Image.fromarray(scene.image))
    for shape in shapes:
        mask = decode_mask(shape.points, image_width=128, image_height=128)
        assert (mask == (labels == shape.label_id + 1)).all()
    assert len(shapes) == len(set(np.unique(labels)) - {0}) > 0
    deep = Image.fromarray(scene.image[..., 0].astype(np.uint16) * 257)  # nothing is cut off
    grey = made.look(np.repeat(scene.image[..., :1], 3, axis=2), scene.labels).labels()
    assert {shape.label_id + 1 for shape in function.detect(Context(), deep)} == set(np.unique(grey)) - {0}
    assert function.detect(Context(), Image.new("RGB", (1, 1))) == []
    assert "skipped a.png: image: 1 wide and 1 high" in capsys.readouterr().err
    Context.conv_mask_to_poly = True
    assert {shape.type.value for shape in function.detect(Context(), Image.fromarray(scene.image))} == {"polygon"}


def test_label_values_are_shown_on_the_photo_and_kept_in_a_file(made, scene, tmp_path):
    Image.fromarray(scene.image).save(tmp_path / "a photo.png")
    steps = list(STEP_NAMES)[:4]
    *_, values, file = show_photo(made, tmp_path / "a photo.png", ", ".join(scene.labels), 0.5, steps, tmp_path)
    labels = made.look(scene.image, scene.labels).labels()
    assert Path(file).name == "a photo.png" and (load_labels_png(Path(file)) == labels).all()
    photo, labels = fit_image(scene.image, VALUES_SIDE), fit_labels(labels, VALUES_SIDE)
    inner = np.stack([np.roll(labels, move, axis) == labels for move in (-1, 1) for axis in (0, 1)]).all(axis=0)
    assert values.shape == photo.shape and (values == photo).all(axis=2)[(labels == 0) & inner].mean() > 0.9
    for value in set(np.unique(labels)) - {0}:  # half photo, half colour: never as dark as the colours on black
        tint = np.rint(0.55 * VOC_PALETTE[value] + 0.45 * photo)
        assert np.median(np.abs(values - tint)[(labels == value) & inner]) <= 1
    assert values.mean() > 0.5 * photo.mean() > 2 * VOC_PALETTE[labels].mean()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_page_answers_and_says_what_is_wrong(made, scene, tmp_path):
    pytest.importorskip("gradio")
    from gradio_client import Client, handle_file

    from flows.live.page import make_page

    page = make_page(made, ", ".join(scene.labels))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", share=False)
    try:
        file = tmp_path / "scene.png"
        Image.fromarray(scene.image).save(file)
        client = Client(address, verbose=False)
        _, remarks, shares, values, mask = client.predict(
            handle_file(file), ", ".join(scene.labels), 0.5, 4, api_name="/segment"
        )
        labels = made.look(scene.image, scene.labels).labels()
        assert {row[0] for row in shares["data"]} == {scene.labels[value - 1] for value in np.unique(labels) if value}
        assert Path(mask).name == "scene.png" and (load_labels_png(Path(mask)) == labels).all()
        with Image.open(values) as drawn:
            large = fit_image(scene.image, VALUES_SIDE), fit_labels(labels, VALUES_SIDE)
            assert (np.asarray(drawn) == overlay_labels(*large)).all()
        assert remarks.startswith("excel-tiny has seen drawn scenes of the picture-book world alone")
        assert not any("doubtful" in row[1] for row in shares["data"])
        _, remarks, shares, *_ = client.predict(handle_file(file), f"{scene.labels[0]}, zebra", 0.2, 4, api_name="/segment")
        assert "doubtful: zebra: excel-tiny has never seen it, only drawings of other things" in remarks
        assert [row[1].endswith(", doubtful") for row in shares["data"] if row[0] == "zebra"] == [True]
        deep = tmp_path / "deep.png"  # 16 bits: values that Gradio itself would cut off
        Image.fromarray(scene.image[..., 0].astype(np.uint16) * 257).save(deep)
        *_, mask = client.predict(handle_file(deep), ", ".join(scene.labels), 0.5, 4, api_name="/segment")
        grey = np.repeat(scene.image[..., :1], 3, axis=2)
        assert (load_labels_png(Path(mask)) == made.look(grey, scene.labels).labels()).all()
        Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
        with pytest.raises(Exception, match="both sides must have at least 8 pixels"):
            client.predict(handle_file(tmp_path / "dot.png"), "dog", 0.5, 4, api_name="/segment")
        for wrong, message in ((handle_file(file), "expected 1 to 254 names"), (None, "Choose a photo first")):
            with pytest.raises(Exception, match=message):
                client.predict(wrong, "", 0.5, 4, api_name="/segment")
    finally:
        page.close()
        del client, page
        gc.collect()  # Gradio leaves files and loops open, which would be told later
