"""The report stands alone, shows what it should, escapes what it shows, and leaves out what is not there."""

import base64
import hashlib
import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifacts.charts import confusion_png
from artifacts.prefect_artifacts.body import MarkdownBody
from artifacts.prefect_artifacts.run_bodies import run_bodies
from artifacts.report import write_report
from artifacts.tables import confusion_table, largest_confusions
from artifacts.view import ReportView, StageRow
from tests.report_view import CONFUSION, HOSTILE, NAMES, decoded, example_view


@pytest.fixture
def view() -> ReportView:
    return example_view()


VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Collects tags and text, and asserts that every tag that opens also closes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_attributes_of_a_file_are_called_so(tmp_path: Path, view: ReportView) -> None:
    given = replace(view, attributes_are="centroids of the file bank.pth")
    text = " ".join("".join(Page(write_report(tmp_path, given).read_text(encoding="utf-8")).text).split())
    assert "Attributes are centroids of the file bank.pth: the descriptions nearest" in text
    (table,) = (body for body in run_bodies(given, tmp_path) if body.key == "excel-attributes-de-mo")
    assert table.description.startswith("Attributes: centroids of the file bank.pth;")


def test_the_page_stands_alone_and_its_pictures_decode(tmp_path: Path, view: ReportView) -> None:
    path = write_report(tmp_path, view)
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"] and path == tmp_path / "index.html"
    page = Page(path.read_text(encoding="utf-8"))
    images = page.all("img")
    charts = ("ablation", "losses", "knowledge map")
    assert len(images) == 2 * (2 + 2 + 4 + 1) + (3 + 2) + len(charts)  # those of the gallery show without a script alone
    for image in images:
        assert (image["alt"] or "").strip() and min(decoded(image["src"] or "").size) > 1
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("href", "src")]
    assert all((value or "").startswith(("#", "data:image/")) for value in addresses)
    assert not page.all("link") and "url(" not in path.read_text() and "@import" not in path.read_text()
    sections = {attributes["id"] for attributes in page.all("section")}
    assert {address[1:] for address in addresses if address and address[0] == "#"} <= sections


def test_only_the_page_s_own_script_may_run(tmp_path: Path, view: ReportView) -> None:
    source = write_report(tmp_path, view).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [tag["content"] or "" for tag in Page(source).all("meta") if "http-equiv" in tag]
    assert policy.startswith("default-src 'none'; img-src data:; style-src") and f"script-src 'sha256-{digest}';" in policy
    assert "connect-src" not in policy and "'self'" not in policy
    assert "innerHTML" not in script and "eval" not in script and "https:" not in script


def test_hostile_names_stay_text(tmp_path: Path, view: ReportView) -> None:
    source = write_report(tmp_path, view).read_text(encoding="utf-8")
    assert source.count("<script") == 1
    text = "".join(Page(source).text)
    for place in (
        f"Run of {HOSTILE}",
        f"car|van, {HOSTILE}",
        f"Not scored: {HOSTILE}",
        f"Warning: val: 1 of 7 images ({HOSTILE}) have an EXIF orientation",
        f"worst of {HOSTILE}",
        f"{HOSTILE} 0.125",
    ):
        assert place in text
    spec, _ = json.JSONDecoder().raw_decode(text[text.index('{\n  "train"') :])
    assert spec == {"train": {"note": HOSTILE}, "folder": "runs"}
    for body in run_bodies(view, Path("index.html")):
        assert not isinstance(body, MarkdownBody) or "<script" not in body.markdown.partition("```")[0]


def test_the_page_says_where_each_stage_comes_from(tmp_path: Path, view: ReportView) -> None:
    text = "".join(Page(write_report(tmp_path, view).read_text(encoding="utf-8")).text)
    (row,) = view.stages
    for known in (row.identity, row.code, row.inputs["knowledge"], row.made_by, row.made_by_id, row.folder):
        assert known in text
    assert "2026-11-24 01:44:02 UTC" in text and "images train 7 · steps raw, par · share 0.1235" in text
    bare = replace(view, stages=(StageRow("cams", "ab" * 16, 1.0, {}, 1),))
    assert "built by" not in "".join(Page(write_report(tmp_path, bare).read_text(encoding="utf-8")).text)


def test_the_page_says_what_each_stage_took(tmp_path: Path, view: ReportView) -> None:
    (row,) = view.stages
    train = replace(row, stage="train", seconds=10.0, peak_host_bytes=2**31, peak_gpu_bytes=2**30)
    source = write_report(tmp_path, replace(view, stages=(row, train))).read_text(encoding="utf-8")
    (table,) = re.findall(r"<table>.*?</table>", source[source.index('<section id="stages">') :], re.S)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.S) for line in re.findall(r"<tr>.*?</tr>", table, re.S)]
    assert rows[0] == ["stage", "time", "host GiB", "GPU GiB", "size", "identity", "summary"]
    assert [cells[:5] for cells in rows[1:]] == [
        ["cams", "1 min 15 s", "1.50", "–", "4.2 MB"],
        ["train", "10.0 s", "2.00", "1.00", "4.2 MB"],
        ["total", "1 min 25 s", "2.00", "1.00", "8.4 MB"],
    ]
    assert {len(cells) for cells in rows} == {7} and "summed over processes that train together" in source


def test_the_page_of_a_run_with_nothing_to_show(tmp_path: Path, view: ReportView) -> None:
    bare = replace(
        view, metrics={"results": {}}, stages=(), gallery=(), segmented=(), losses=None, attributes=(), confusion={},
        knowledge_map=None, explored=(),
    )  # fmt: skip
    page = Page(write_report(tmp_path, bare).read_text(encoding="utf-8"))
    assert "Nothing was scored." in "".join(page.text) and not page.all("img")
    assert {attributes["id"] for attributes in page.all("section")} == {"results", "stages"}
    assert [body.key for body in run_bodies(bare, tmp_path)] == ["excel-gallery-de-mo"]


def test_confusions_are_shares_of_the_truth(tmp_path: Path, view: ReportView) -> None:
    cells = confusion_table(CONFUSION)
    assert [cell.text for cell in cells[0]] == ["89", "6", "6", "0"]
    assert [cell.text for cell in cells[3]] == ["–"] * 4 and cells[3][3].share is None
    assert sum(cell.share or 0 for cell in cells[2]) == pytest.approx(1)
    assert [cell.text for cell in confusion_table(np.array([[999, 1], [1, 1]]))[0]] == [">99", "<1"]
    names = ("background", *NAMES)
    expected = [("car|van", "background", "33 %"), (HOSTILE, "background", "22 %"), ("background", "car|van", "6 %")]
    assert largest_confusions(CONFUSION, names)[:3] == expected and len(largest_confusions(CONFUSION, names)) == 4
    page = Page(write_report(tmp_path, view).read_text(encoding="utf-8"))
    matrices = [tag for tag in page.all("table") if tag.get("class") == "matrix"]
    assert len(matrices) == 1  # seeds.static.train.raw is not the last of its family


def test_a_large_confusion_matrix_is_a_picture_and_a_list(tmp_path: Path, view: ReportView) -> None:
    names = tuple(f"class {n}" for n in range(1, 27))
    counts = np.diag(np.full(27, 90)) + np.diag(np.full(26, 10), 1)
    large = replace(view, class_names=names, confusion={"segmentation.val.multi_scale_crf": counts}, knowledge_map=None)
    page = Page(write_report(tmp_path, large).read_text(encoding="utf-8"))
    assert "class 1 → class 2, 10 %" in " ".join("".join(page.text).split())
    (matrix,) = [image for image in page.all("img") if (image["alt"] or "").startswith("confusion matrix")]
    assert "background taken for class 1 10 %" in (matrix["alt"] or "")
    assert confusion_png(counts, ("background", *names)) != confusion_png(counts.T, ("background", *names))
