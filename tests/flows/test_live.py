"""Live tools over the labeller: its threshold, a backend for Label Studio, a function for CVAT, a page in Gradio."""

import base64
import copy
import io
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from excel_core.errors import SettingError
from excel_core.exports.brush_runs import decode_brush
from excel_core.world.scenes import render_scene
from flows.live.label_studio import Interface, backend, read_interface
from flows.live.labeller import PhotoLabeller, background_power
from flows.request import RunRequest

CONFIG = """<View><Image name="photo" value="$image"/><BrushLabels name="brush" toName="photo">
<Label value="{}"/><Label value="{}"/></BrushLabels></View>"""


@pytest.fixture(scope="module")
def scene():
    return next(scene for scene in (render_scene(seed, 128) for seed in range(1_000_000, 1_000_050)) if len(scene.labels) == 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    settings = ["cams.image_size=128", "cams.normalisation=clip", "describe.n=4", "knowledge.attributes=8"]
    store = str(tmp_path_factory.mktemp("live") / "store")
    return PhotoLabeller(RunRequest.checked(preset="photos", clip="excel-tiny", settings=settings, store=store))


@contextmanager
def _served(app):
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def _data_address(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_a_threshold_is_where_cam_and_background_tie():
    for threshold in (0.05, 0.3, 0.5, 0.95):
        assert (1 - threshold) ** background_power(threshold) == pytest.approx(threshold)
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(SettingError, match=r"expected a number from 0.05 to 0.95"):
            background_power(wrong)


def test_a_higher_threshold_leaves_fewer_pixels(made, scene):
    pixels = [(made.steps(scene.image, scene.labels, threshold)["raw"] > 0).sum() for threshold in (0.2, 0.5, 0.8)]
    assert pixels[0] > pixels[1] > pixels[2] > 0
    labels = list(made.steps(scene.image, scene.labels).values())[-1]
    assert labels.shape == scene.mask.shape and set(np.unique(labels)) <= {0, 1, 2}
    with pytest.raises(SettingError, match="expected 1 to 254 names"):
        made.steps(scene.image, ())


def test_the_backend_labels_what_label_studio_asks_for(made, scene):
    config = CONFIG.format(*scene.labels)
    with _served(backend(made, None)) as address:
        assert httpx.get(f"{address}/health").json()["status"] == "UP"
        assert httpx.post(f"{address}/setup", json={"schema": config}).status_code == 200
        tasks = [{"id": 1, "data": {"image": _data_address(scene.image)}}, {"id": 2, "data": {"image": "/data/upload/1.png"}}]
        answer = httpx.post(f"{address}/predict", json={"tasks": tasks, "label_config": config}, timeout=120).json()
    first, second = answer["results"]
    assert second["result"] == [] and "start with --label-studio" in second["error"]
    labels = list(made.steps(scene.image, scene.labels).values())[-1]
    for found in first["result"]:
        name = found["value"]["brushlabels"][0]
        assert (found["from_name"], found["to_name"], found["type"]) == ("brush", "photo", "brushlabels")
        assert (decode_brush(found["value"]["rle"], 128, 128) == (labels == scene.labels.index(name) + 1)).all()
    assert {found["value"]["brushlabels"][0] for found in first["result"]} == {
        scene.labels[v - 1] for v in np.unique(labels) if v
    }


def test_names_with_commas_and_in_another_case_keep_their_masks(made, scene):
    """The first is one class, whatever is in it: masks of the others would move by one."""
    names = (f"{scene.labels[0]}, or so", scene.labels[1].upper())
    config = CONFIG.format(*names)
    with _served(backend(made, None)) as address:
        tasks = [{"data": {"image": _data_address(scene.image)}}]
        answer = httpx.post(f"{address}/predict", json={"tasks": tasks, "label_config": config}, timeout=120).json()
    labels = list(made.steps(scene.image, names).values())[-1]
    results = answer["results"][0]["result"]
    assert {result["value"]["brushlabels"][0] for result in results} == {
        names[value - 1] for value in np.unique(labels) if value
    }
    for result in results:
        number = names.index(result["value"]["brushlabels"][0]) + 1
        assert (decode_brush(result["value"]["rle"], 128, 128) == (labels == number)).all()
    trained = copy.copy(made)
    trained.trained = SimpleNamespace(class_names=("sofa", *map(str.upper, scene.labels)))  # its names are all that is asked
    assert trained.label_of(scene.labels) == {scene.labels[0]: 2, scene.labels[1]: 3}


def test_photos_come_from_that_label_studio_alone(made, scene, monkeypatch):
    """A task's address must not make the backend read other places, nor send its key there."""
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    asked = []

    async def photo(request):
        asked.append(request.headers.get("authorization"))
        return Response(base64.b64decode(_data_address(scene.image).partition(",")[2]))

    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "studio-key")
    with _served(Starlette(routes=[Route("/data/upload/1.png", photo)])) as studio, _served(backend(made, studio)) as address:
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
    with _served(backend(made, None)) as address:
        answer = httpx.post(f"{address}/predict", content=body)
    assert answer.status_code == 400 and message in answer.json()["error"]


def test_the_interface_names_brush_image_and_classes():
    assert read_interface(CONFIG.format("dog", "sofa")) == Interface("brush", "photo", "image", ("dog", "sofa"))


def test_cvats_function_gives_masks_that_cvat_reads(made, scene, tmp_path):
    pytest.importorskip("cvat_sdk.auto_annotation")
    from cvat_sdk.auto_annotation import DetectionFunctionContext
    from cvat_sdk.masks import decode_mask

    from flows.live.cvat_function import MaskFunction

    class Context(DetectionFunctionContext):
        frame_name, conf_threshold, conv_mask_to_poly = "a.png", None, False

    function = MaskFunction(made, tuple(scene.labels))
    assert [label.name for label in function.spec.labels] == list(scene.labels)
    labels = list(made.steps(scene.image, scene.labels).values())[-1]
    shapes = function.detect(Context(), Image.fromarray(scene.image))
    for shape in shapes:
        mask = decode_mask(shape.points, image_width=128, image_height=128)
        assert (mask == (labels == shape.label_id + 1)).all()
    assert len(shapes) == len(set(np.unique(labels)) - {0}) > 0
    Context.conv_mask_to_poly = True
    assert {shape.type.value for shape in function.detect(Context(), Image.fromarray(scene.image))} == {"polygon"}


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
        _, shares, mask = client.predict(handle_file(file), ", ".join(scene.labels), 0.5, 4, api_name="/segment")
        labels = list(made.steps(scene.image, scene.labels).values())[-1]
        assert {row[0] for row in shares["data"]} == {scene.labels[value - 1] for value in np.unique(labels) if value}
        with Image.open(mask) as drawn:
            assert (np.asarray(drawn.convert("L")) == labels).all()
        for wrong, message in ((handle_file(file), "expected 1 to 254 names"), (None, "Choose a photo first")):
            with pytest.raises(Exception, match=message):
                client.predict(wrong, "", 0.5, 4, api_name="/segment")
    finally:
        page.close()
