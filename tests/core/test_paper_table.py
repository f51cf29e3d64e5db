"""A table of the paper for people: per cent, intervals, brackets and grey under a limit, what all rows share once."""

import io

from rich.console import Console

from artifacts.paper.table import joined_tables, paper_markdown, paper_notes, paper_rows, print_paper

PROTOCOL = {"what": "segmentation", "split": "val", "refinement": "none", "method": "reference", "images": 4}


def _table(limit=None, preset="voc", table="table-1", rows=None):
    rows = rows or [
        {
            "row": "val, no CRF",
            "ours": 0.5,
            "low": 0.4512,
            "high": 0.55,
            "published": 0.772,
            "note": "",
            "protocol": PROTOCOL,
        },
        {
            "row": "val, CRF",
            "ours": 0.51,
            "low": None,
            "high": None,
            "published": 0.784,
            "note": "so | so",
            "protocol": PROTOCOL | {"refinement": "CRF"},
        },
        {"row": "test", "ours": None, "published": None, "note": "not there"},
    ]
    about = {"format": "excel-paper/1", "title": "Table 1: segmentation", "method": "reference", "clip": "excel-tiny"}
    return about | {"table": table, "preset": preset, "limit": limit, "rows": rows}


def _printed(table, terminal=False):
    out = io.StringIO()
    print_paper(table, Console(file=out, width=150, force_terminal=terminal, color_system="standard" if terminal else None))
    return out.getvalue()


def test_per_cent_with_intervals_beside_the_published():
    rows = paper_rows(_table())
    assert [row["ours"] for row in rows] == ["50.0 [45.1, 55.0]", "51.0", "–"]
    assert [row["published"] for row in rows] == ["77.2", "78.4", "–"]


def test_what_all_rows_share_is_said_once():
    rows = paper_rows(_table())
    assert [row["remarks"] for row in rows] == ["refinement: none", "refinement: CRF; so | so", "not there"]
    notes = paper_notes(_table())
    assert notes[0] == "preset voc, method reference, CLIP excel-tiny"
    assert notes[1] == "segmentation · val · method: reference · images: 4"
    same = _table(rows=[{**row, "note": ""} for row in _table()["rows"][:1]])
    assert "remarks" not in paper_rows(same)[0] and "refinement: none" in paper_notes(same)[1]


def test_under_a_limit_the_published_stand_in_brackets_and_grey():
    limited = _table(limit=12)
    assert [row["published"] for row in paper_rows(limited)] == ["(77.2)", "(78.4)", "–"]
    (note,) = [note for note in paper_notes(limited) if note.startswith("no reproduction")]
    assert "12 images a split" in note and not any("no reproduction" in note for note in paper_notes(_table()))
    grey = "\x1b[90m"
    assert f"{grey}(77.2)" in _printed(limited, terminal=True)
    assert grey not in _printed(_table(), terminal=True)
    assert "no reproduction" in _printed(limited) and "(77.2)" in _printed(limited)


def test_rows_of_two_data_sets_are_one_table():
    coco = _table(preset="coco", rows=[{**_table()["rows"][0], "row": "COCO val", "protocol": PROTOCOL | {"images": 9}}])
    whole = joined_tables([_table(), coco])
    assert whole["preset"] == "voc, coco" and [row["row"] for row in whole["rows"]][-1] == "COCO val"
    assert paper_rows(whole)[0]["remarks"] == "refinement: none · images: 4"
    assert joined_tables([_table()]) == _table()


def test_rows_of_one_name_are_told_apart_by_their_data_set():
    cost = {"row": "train", "ours": "7.4 s", "host GiB": "1.50", "GPU GiB": "–", "published": None, "note": ""}
    tables = [_table(preset=name, table="table-7", rows=[cost]) for name in ("voc", "coco")]
    whole = joined_tables(tables)
    assert [row["row"] for row in whole["rows"]] == ["VOC train", "COCO train"]
    assert [row["row"] for row in joined_tables(tables[:1])["rows"]] == ["train"]
    shown = paper_rows(whole)[0]
    assert shown == {"row": "VOC train", "ours": "7.4 s", "host GiB": "1.50", "GPU GiB": "–", "published": "–"}
    assert not any("mIoU" in note for note in paper_notes(whole))


def test_archives_are_named_where_they_lie():
    row = {"row": "VOC test", "ours": None, "published": 0.773, "note": "scored there", "archive": "/store/x/results.tgz"}
    assert "VOC test: /store/x/results.tgz" in paper_notes(_table(rows=[row]))


def test_markdown_is_the_same_table_with_its_signs_escaped():
    page = paper_markdown(_table(limit=12))
    lines = page.splitlines()
    assert lines[0] == "## Table 1: segmentation" and lines[2].startswith("| row | ours | published | remarks |")
    assert "| val, no CRF | 50.0 \\[45.1, 55.0\\] | (77.2) | refinement: none |" in lines
    assert "so \\| so" in page and "- no reproduction: 12 images a split" in page
