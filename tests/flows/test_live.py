"""Live tools over the labeller: its threshold, a backend for Label Studio, a function for CVAT, a page in Gradio."""

import base64
import io
import threading
from contextlib import contextmanager

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
    pixels = [(made.look(scene.image, scene.labels, threshold).steps["raw"] > 0).sum() for threshold in (0.2, 0.5, 0.8)]
    assert pixels[0] > pixels[1] > pixels[2] > 0
    labels = made.look(scene.image, scene.labels).labels
    assert labels.shape == scene.mask.shape and set(np.unique(labels)) <= {0, 1, 2}
    with pytest.raises(SettingError, match="expected 1 to 254 names"):
        made.look(scene.image, ())


def test_the_backend_labels_what_label_studio_asks_for(made, scene):
    config = CONFIG.format(*scene.labels)
    with _served(backend(made, None)) as address:
        assert httpx.get(f"{address}/health").json()["status"] == "UP"
        assert httpx.post(f"{address}/setup", json={"schema": config}).status_code == 200
        tasks = [{"id": 1, "data": {"image": _data_address(scene.image)}}, {"id": 2, "data": {"image": "/data/upload/1.png"}}]
        answer = httpx.post(f"{address}/predict", json={"tasks": tasks, "label_config": config}, timeout=120).json()
    first, second = answer["results"]
    assert second["result"] == [] and "start with --label-studio" in second["error"]
    labels = made.look(scene.image, scene.labels).labels
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


def _asked(address, config, *images):
    tasks = [{"data": {"image": image if isinstance(image, str) else _data_address(image)}} for image in images]
    return httpx.post(f"{address}/predict", json={"tasks": tasks, "label_config": config}, timeout=120)


ODD_ADDRESSES = ("http://[::1/x.png", "/data/\x00.png", "http://127.0.0.1:99999/x.png", "data:image/png;base64,=", "//", "x" * 9999)


def test_odd_photos_and_addresses_cost_no_other_its_masks(made, scene):
    small, long = np.zeros((1, 1, 3), np.uint8), np.full((8, 4000, 3), 90, np.uint8)
    with _served(backend(made, "http://127.0.0.1:9")) as address:
        answer = _asked(address, CONFIG.format(*scene.labels), small, long, *ODD_ADDRESSES, scene.image)
    results = answer.json()["results"]
    assert answer.status_code == 200 and results[-1]["result"] and "error" not in results[-1]
    assert "both sides must have at least 8 pixels" in results[0]["error"] and "error" not in results[1]
    assert all(result["error"] and len(result["error"]) < 600 for result in results[2:-1])


def _file(picture, **options):
    file = io.BytesIO()
    picture.save(file, **options)
    return "data:;base64," + base64.b64encode(file.getvalue()).decode()


def test_photos_of_every_kind_have_masks_of_their_own_size(made, scene):
    """CMYK, 16 bits, grey, palette with transparency, and 24 megapixels: what is asked for is the photo as a viewer shows it."""
    photo = Image.fromarray(scene.image)
    deep = Image.fromarray(scene.image[..., 0].astype(np.uint16) * 257)
    kinds = [
        _file(photo.convert("CMYK"), format="JPEG", quality=95), _file(deep, format="PNG"),
        _file(photo.convert("L"), format="PNG"), _file(photo.convert("P"), format="GIF"),
        _file(photo.resize((6000, 4000)), format="JPEG"),
    ]  # fmt: skip
    with _served(backend(made, None)) as address:
        results = _asked(address, CONFIG.format(*scene.labels), *kinds).json()["results"]
    assert all("error" not in result for result in results)
    sizes = {(found["original_width"], found["original_height"]) for result in results[:4] for found in result["result"]}
    assert sizes == {(128, 128)} and results[4]["result"][0]["original_width"] == 6000
    grey = np.repeat(scene.image[..., :1], 3, axis=2)
    wanted = made.look(grey, scene.labels).labels  # of the 16 bits: nothing is cut off
    masks = {found["value"]["brushlabels"][0]: found["value"]["rle"] for found in results[1]["result"]}
    for name, rle in masks.items():
        assert (decode_brush(rle, 128, 128) == (wanted == scene.labels.index(name) + 1)).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "needs <BrushLabels toName"),
        ([""], "needs <BrushLabels toName"),
        ([f"c{number}" for number in range(300)], "expected 1 to 254 names"),
        (["dog", "Dog"], "'Dog' is given twice"),
        (["background"], "no class can be called 'background'"),
        ([" "], "' ' is no class name"),
    ],
)
def test_classes_that_cannot_be_are_refused_as_they_are_set_up(made, scene, labels, message):
    brushes = "".join(f'<Label value="{label}"/>' for label in labels)
    config = f'<View><Image name="p" value="$image"/><BrushLabels name="b" toName="p">{brushes}</BrushLabels></View>'
    with _served(backend(made, None)) as address:
        for answer in (httpx.post(f"{address}/setup", json={"schema": config}), _asked(address, config, scene.image)):
            assert answer.status_code == 400 and message in answer.json()["error"]


def test_odd_class_names_come_back_as_label_studio_wrote_them(made, scene):
    names = (f"  {scene.labels[0]}", "cafe\u0301, brown", "犬 &amp; кошка")
    config = CONFIG.replace('<Label value="{}"/><Label value="{}"/>', "".join(f'<Label value="{name}"/>' for name in names))
    with _served(backend(made, None)) as address:
        answer = _asked(address, config, scene.image)
    asked = read_interface(config).classes
    assert answer.status_code == 200 and asked[2] == "犬 & кошка"
    found = {found["value"]["brushlabels"][0] for found in answer.json()["results"][0]["result"]}
    assert found and found <= set(asked)


def test_254_classes_and_two_requests_at_once(made, scene):
    brushes = "".join(f'<Label value="thing {number}"/>' for number in range(254))
    config = f'<View><Image name="p" value="$image"/><BrushLabels name="b" toName="p">{brushes}</BrushLabels></View>'
    answers = {}
    with _served(backend(made, None)) as address:
        wanted = _asked(address, CONFIG.format(*scene.labels), scene.image).json()

        def ask(key, asked):
            answers[key] = _asked(address, asked, scene.image)

        asked = {0: config, 1: CONFIG.format(*scene.labels), 2: CONFIG.format(*scene.labels)}
        threads = [threading.Thread(target=ask, args=item) for item in asked.items()]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert answers[0].status_code == 200 and answers[1].json() == answers[2].json() == wanted


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://127.0.0.1", "--label-studio: expected http://HOST:PORT"),
        ("127.0.0.1:8080", "expected http://HOST:PORT"),
        ("http://me:geheim@127.0.0.1", "without a user's name and password"),
        ("http://[::1", "expected http://HOST:PORT"),
        ("http://192.0.2.1:8080", "LABEL_STUDIO_API_KEY would go to another machine over plain http.*EXCEL_INSECURE_HTTP=192.0.2.1"),
    ],
)
def test_a_key_goes_over_plain_http_to_this_machine_alone(made, monkeypatch, address, message):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "studio-key")
    monkeypatch.delenv("EXCEL_INSECURE_HTTP", raising=False)
    with pytest.raises(SettingError, match=message) as refused:
        backend(made, address)
    assert "studio-key" not in str(refused.value) and "geheim" not in str(refused.value)


def test_without_a_key_or_with_leave_it_is_no_matter(made, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "studio-key")
    monkeypatch.setenv("EXCEL_INSECURE_HTTP", "label-studio, 192.0.2.1")
    backend(made, "http://192.0.2.1:8080")
    monkeypatch.delenv("EXCEL_INSECURE_HTTP")
    backend(made, "https://192.0.2.1")
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    backend(made, "http://192.0.2.1:8080")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--for", "cvat"], "--for cvat: valid: page, label-studio"),
        (["--label-studio", "http://127.0.0.1:8080"], "is for --for label-studio alone"),
        (["--for", "label-studio", "--label-studio", "http://192.0.2.1"], "LABEL_STUDIO_API_KEY would go to another machine"),
        (["--for", "label-studio", "--classes", "dog, dog"], "'dog' is given twice"),
    ],
)
def test_what_cannot_be_served_is_refused_first(command_line, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "studio-key")
    code, out, err = command_line("serve", "--clip", "excel-tiny", "--store", tmp_path / "s", *arguments)
    assert code == 2 and out == "" and message in " ".join(err.split())


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
    labels = made.look(scene.image, scene.labels).labels
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
        _, remarks, shares, mask = client.predict(handle_file(file), ", ".join(scene.labels), 0.5, 4, api_name="/segment")
        labels = made.look(scene.image, scene.labels).labels
        assert {row[0] for row in shares["data"]} == {scene.labels[value - 1] for value in np.unique(labels) if value}
        with Image.open(mask) as drawn:
            assert (np.asarray(drawn.convert("L")) == labels).all()
        assert remarks.startswith("excel-tiny has seen drawn scenes of the picture-book world alone")
        assert not any("doubtful" in row[1] for row in shares["data"])
        _, remarks, shares, _ = client.predict(handle_file(file), f"{scene.labels[0]}, zebra", 0.2, 4, api_name="/segment")
        assert "doubtful: zebra: excel-tiny has never seen it, only drawings of other things" in remarks
        assert [row[1].endswith(", doubtful") for row in shares["data"] if row[0] == "zebra"] == [True]
        deep = tmp_path / "deep.png"  # 16 bits: values that Gradio itself would cut off
        Image.fromarray(scene.image[..., 0].astype(np.uint16) * 257).save(deep)
        _, _, _, mask = client.predict(handle_file(deep), ", ".join(scene.labels), 0.5, 4, api_name="/segment")
        grey = np.repeat(scene.image[..., :1], 3, axis=2)
        with Image.open(mask) as drawn:
            assert (np.asarray(drawn.convert("L")) == made.look(grey, scene.labels).labels).all()
        Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
        with pytest.raises(Exception, match="both sides must have at least 8 pixels"):
            client.predict(handle_file(tmp_path / "dot.png"), "dog", 0.5, 4, api_name="/segment")
        for wrong, message in ((handle_file(file), "expected 1 to 254 names"), (None, "Choose a photo first")):
            with pytest.raises(Exception, match=message):
                client.predict(wrong, "", 0.5, 4, api_name="/segment")
    finally:
        page.close()
