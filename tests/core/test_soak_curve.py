"""The picture of the soak: every curve and its last value, inside the picture, in colours for light and dark."""

import importlib.util
import json
import re

from defusedxml import ElementTree

from tests.conftest import ROOT

SVG = "{http://www.w3.org/2000/svg}"


def _module():
    spec = importlib.util.spec_from_file_location("soak_curve", ROOT / "docs" / "soak_curve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _figures(runs=7, repeats=3):
    held = {"rss_mb": 300.5, "handles": 25, "threads": 12, "processes": 1}
    points = [
        {"run": n, "new": n < runs, "database_mb": 1 + n / 4, "flow": held | {"temporary": n % 2}, "server": held}
        for n in range(runs + repeats)
    ]
    return {"runs": runs, "repeats": repeats, "points": points}


def test_every_curve_is_drawn_inside_the_picture(tmp_path):
    (tmp_path / "soak.json").write_text(json.dumps(_figures()))
    root = ElementTree.parse(_module().write_curve(tmp_path)).getroot()
    *_, width, height = map(float, root.get("viewBox").split())
    lines = [
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()] for line in root.iter(f"{SVG}polyline")
    ]
    assert len(lines) == 7 and {len(line) for line in lines} == {10}
    assert all(0 < x < width and 0 < y < height for line in lines for x, y in line)
    assert [y for _, y in lines[0]] == sorted((y for _, y in lines[0]), reverse=True)  # the database grows
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "database 3.25" in texts and "flow process 300.5" in texts and "run 10" in texts
    ends = [float(text.get("y")) for text in root.iter(f"{SVG}text") if text.get("style")]
    assert all(abs(a - b) > 12 for i, a in enumerate(ends) for b in ends[:i]), "labels overlap"
    assert re.search(r"prefers-color-scheme:dark.*--paper:#1", root.find(f"{SVG}style").text)
