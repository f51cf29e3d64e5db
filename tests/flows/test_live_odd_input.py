"""Label Studio's backend, the page and CVAT's function under odd photos, addresses, class names and keys."""

import socket
import threading

import httpx
import numpy as np
import pytest
from PIL import Image

from excel_core.errors import SettingError
from excel_core.exports.brush_runs import decode_brush
from flows.live.label_studio import backend, read_interface
from tests.flows.live_backend import CONFIG, asked, encoded, interface, served

ODD_ADDRESSES = ("http://[::1/x.png", "/data/\x00.png", "data:image/png;base64,=", "//", "x" * 9999)


def test_odd_photos_and_addresses_cost_no_other_its_masks(made, scene):
    small, long = np.zeros((1, 1, 3), np.uint8), np.full((8, 4000, 3), 90, np.uint8)
    with served(backend(made, "http://127.0.0.1:9")) as address:
        answer = asked(address, CONFIG.format(*scene.labels), small, long, *ODD_ADDRESSES, scene.image)
    results = answer.json()["results"]
    assert answer.status_code == 200 and results[-1]["result"] and "error" not in results[-1]
    assert "both sides must have at least 8 pixels" in results[0]["error"] and "error" not in results[1]
    assert all(result["error"] and len(result["error"]) < 600 for result in results[2:-1])


def test_photos_of_every_kind_have_masks_of_their_own_size(made, scene):
    """CMYK, 16 bits, grey, palette and 24 megapixels: what is labelled is the photo as a viewer shows it."""
    photo = Image.fromarray(scene.image)
    deep = Image.fromarray(scene.image[..., 0].astype(np.uint16) * 257)
    kinds = [
        encoded(photo.convert("CMYK"), format="JPEG", quality=95), encoded(deep, format="PNG"),
        encoded(photo.convert("L"), format="PNG"), encoded(photo.convert("P"), format="GIF"),
        encoded(photo.resize((6000, 4000)), format="JPEG"),
    ]  # fmt: skip
    with served(backend(made, None)) as address:
        results = asked(address, CONFIG.format(*scene.labels), *kinds).json()["results"]
    assert all("error" not in result for result in results)
    sizes = {(found["original_width"], found["original_height"]) for result in results[:4] for found in result["result"]}
    assert sizes == {(128, 128)} and results[4]["result"][0]["original_width"] == 6000
    grey = np.repeat(scene.image[..., :1], 3, axis=2)
    wanted = made.look(grey, scene.labels).labels()  # of the 16 bits: nothing is cut off
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
        ([" "], "'' is no class name"),
    ],
)
def test_classes_that_cannot_be_are_refused_as_they_are_set_up(made, scene, labels, message):
    config = interface(labels)
    with served(backend(made, None)) as address:
        for answer in (httpx.post(f"{address}/setup", json={"schema": config}), asked(address, config, scene.image)):
            assert answer.status_code == 400 and message in answer.json()["error"]


def test_odd_class_names_come_back_as_label_studio_wrote_them(made, scene):
    names = (f"  {scene.labels[0]}", "cafe\u0301, brown", "犬 &amp; кошка")
    config = interface(names)
    with served(backend(made, None)) as address:
        answer = asked(address, config, scene.image)
    classes = read_interface(config).classes
    assert answer.status_code == 200 and classes[2] == "犬 & кошка"
    found = {found["value"]["brushlabels"][0] for found in answer.json()["results"][0]["result"]}
    assert found and found <= set(classes)


def test_254_classes_and_two_requests_at_once(made, scene):
    config = interface([f"thing {number}" for number in range(254)])
    answers = {}
    with served(backend(made, None)) as address:
        wanted = asked(address, CONFIG.format(*scene.labels), scene.image).json()

        def ask(key, config):
            answers[key] = asked(address, config, scene.image)

        configs = {0: config, 1: CONFIG.format(*scene.labels), 2: CONFIG.format(*scene.labels)}
        threads = [threading.Thread(target=ask, args=item) for item in configs.items()]
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
        ("http://192.0.2.1:8080", "LABEL_STUDIO_API_KEY would go to another machine.*EXCEL_INSECURE_HTTP=192.0.2.1"),
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
        (["--for", "label-studio", "--host", "nowhere.invalid"], "--host nowhere.invalid --port 7860: cannot be listened on"),
        (["--for", "label-studio", "--port", "TAKEN"], "cannot be listened on (Address already in use); name another one"),
    ],
)
def test_what_cannot_be_served_is_refused_first(command_line, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "studio-key")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = [word.replace("TAKEN", str(taken.getsockname()[1])) for word in arguments]
        code, out, err = command_line("serve", "--clip", "excel-tiny", "--store", tmp_path / "s", *arguments)
    assert code == 2 and out == "" and message in " ".join(err.split())
