"""The data of the report's explorer: exact arrays, the same bytes each time, in the page or beside it; no markup from names."""

import base64
import html
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from artifacts import explorer
from artifacts.explorer import kind_title, raw_threshold
from artifacts.report import write_report
from tests.report_view import HOSTILE, NAMES, example_view, explored_image


def _data(folder: Path, element: str) -> list[Any]:
    """The JSON of the page's data elements."""
    source = (folder / "index.html").read_text(encoding="utf-8")
    return [json.loads(html.unescape(text)) for text in re.findall(rf"<pre hidden {element}>(.*?)</pre>", source, re.S)]


def _array(packed: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype=np.uint8).reshape(shape)


def test_the_page_holds_every_array_exactly(tmp_path: Path) -> None:
    view = example_view()
    write_report(tmp_path, view)
    (rows,), pictures = _data(tmp_path, 'id="explorer-data"'), _data(tmp_path, 'class="picture-data"')
    assert rows["format"] == "excel-explorer/1" and rows["classes"] == ["background", *NAMES] and not rows["beside"]
    assert [row["id"] for row in rows["images"]] == ["one", "two", HOSTILE]
    for image, row, picture in zip(view.explored, rows["images"], pictures, strict=True):
        arrays, shape = image.load(), (picture["height"], picture["width"])
        assert shape == (40, 60) and list(picture["maps"]) == list(row["scores"]) == ["static.raw", "static.crf"]
        for kind, labels in arrays.maps.items():
            assert (_array(picture["maps"][kind], shape) == labels).all()
            assert row["scores"][kind]["iou"] == image.scores[kind].iou  # type: ignore[union-attr]
        assert arrays.truth is not None and (_array(picture["truth"], shape) == arrays.truth).all()
        for cam in picture["cams"]:
            expected = arrays.cams[cam["value"] - 1]
            assert np.abs(_array(cam["cam"], (cam["height"], cam["width"])) / 255 - expected).max() <= 0.5 / 255


def test_a_large_photo_and_its_label_maps_shrink_to_one_size(tmp_path: Path) -> None:
    arrays = explored_image("x", 3).load()
    tall = replace(
        arrays,
        image=np.repeat(np.repeat(arrays.image, 21, axis=0), 9, axis=1),
        maps={"static.raw": np.repeat(np.repeat(arrays.maps["static.raw"], 21, axis=0), 9, axis=1)},
        truth=None,
    )
    image = replace(explored_image("x", 3, scored=False), scores={"static.raw": None}, load=lambda: tall)
    write_report(tmp_path, replace(example_view(), explored=(image,)))
    (picture,) = _data(tmp_path, 'class="picture-data"')
    assert (picture["height"], picture["width"]) == (320, 206) and picture["truth"] is None
    labels = _array(picture["maps"]["static.raw"], (320, 206))
    assert set(np.unique(labels)) == set(np.unique(tall.maps["static.raw"]))
    (rows,) = _data(tmp_path, 'id="explorer-data"')
    assert rows["images"][0]["scores"] == {"static.raw": None}


def test_the_same_run_makes_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        write_report(folder, example_view())
    first, second = ((folder / "index.html").read_bytes() for folder in folders)
    assert first == second


def test_many_images_lie_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer, "MAX_INLINE_IMAGES", 2)
    view = example_view()
    write_report(tmp_path, view)
    names = {path.name for path in (tmp_path / "images").iterdir()}
    assert names == {f"{number}.{kind}" for number in range(3) for kind in ("json", "webp")}
    (rows,) = _data(tmp_path, 'id="explorer-data"')
    assert rows["beside"] and len(rows["images"]) == 3 and not _data(tmp_path, 'class="picture-data"')
    picture = json.loads((tmp_path / "images" / "1.json").read_text())
    assert (_array(picture["truth"], (40, 60)) == view.explored[1].load().truth).all()
    with Image.open(tmp_path / "images" / "1.webp", formats=["WEBP"]) as drawn:
        assert drawn.size == (60, 40)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', (tmp_path / "index.html").read_text())
    assert policy.startswith("default-src 'none'; img-src data: 'self'; connect-src 'self'; ")


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    write_report(tmp_path, example_view())
    source = (tmp_path / "index.html").read_text(encoding="utf-8")
    data = source[source.index('id="explorer-data"') : source.index('class="picture-data"')]
    assert HOSTILE not in source and html.escape(HOSTILE).replace("&quot;", "\\&#34;") in data


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
def test_the_threshold_of_raw_is_where_background_and_class_are_equal(power: float) -> None:
    threshold = raw_threshold(power)
    assert (1 - threshold) ** power == pytest.approx(threshold, abs=1e-3)


def test_kinds_have_titles() -> None:
    assert kind_title("lvc.crf") == "CAM seed with LVC: + CRF"
    assert kind_title("segmentation.multi_scale_crf") == "segmentation: multi-scale + CRF"
    assert kind_title("static.confident") == "CAM seed: confident"
