"""What a stage that ran alone shows: the line of its log, and its pages."""

from artifacts.prefect_artifacts.body import MAX_MARKDOWN_BYTES
from artifacts.stage_pages import changes_page, images_page, texts_page
from artifacts.stages import result_line
from excel_core.text.knowledge_diff import ClassChange
from tests.report_view import HOSTILE


def test_what_a_stage_came_to_in_one_line() -> None:
    dataset = {"images": {"train": 1464, "val": 1449}, "left_out": {}, "absent": {"val": 2}, "bad": {"a": "damaged"}}
    assert result_line("dataset", dataset, 1.0, False) == "dataset: 2,913 images, 1 skipped, 2 not in the data folder, 1.0 s"
    assert result_line("refine", {"images": 1464, "steps": ["raw"]}, 192.0, False) == "refine: 1,464 images, 3 min 12 s"
    assert result_line("refine", {"images": 3}, 2.0, True) == "refine: 3 images, complete before (took 2.0 s)"
    trained = result_line("train", {"iterations": 30000, "final_loss": 0.4321}, 7500.0, False)
    assert trained == "train: 30,000 iterations, loss 0.432, 2 h 05 min"
    miou = {"seeds.lvc.train.raw": 0.4, "seeds.lvc.train.crf": 0.5, "segmentation.val.single_scale": 0.6}
    scored = result_line("evaluate", {"miou": miou}, 3.0, False)
    assert scored == "evaluate: mIoU 0.500 seeds.lvc.train.crf, 0.600 segmentation.val.single_scale, 3.0 s"
    assert result_line("evaluate", {"miou": {}}, 3.0, False) == "evaluate: mIoU – (no masks), 3.0 s"
    assert (
        result_line("ablation", {"miou": {"SVC": 0.1, "weight 0.5": 0.3}}, 3.0, False)
        == "ablation: mIoU 0.300 weight 0.5, 3.0 s"
    )
    nested = {"excel": {"static": 0.1, "lvc": 0.2}, "clip_es": {"static": 0.3}}
    assert result_line("benchmark", {"miou": nested}, 3.0, False) == "benchmark: mIoU 0.300 clip_es static, 3.0 s"


def test_a_stages_pages_say_what_they_leave_out() -> None:
    bad = {f"<image{i}>": f"damaged | {HOSTILE}" for i in range(60)}
    page = images_page([{"split": "train", "images": "1"}], [{"class": HOSTILE, "train": "1"}], bad)
    assert page.name == "dataset" and "<script>" not in page.markdown
    assert page.markdown.count("\n* ") == 50 - 1 + 1 and "10 more are in the manifest" in page.markdown
    texts = {f"class {i}": [HOSTILE, "x" * 9_000] * 5 for i in range(20)}
    page = texts_page(texts, {"provider": "file"})
    assert len(page.markdown.encode()) < MAX_MARKDOWN_BYTES and "<script>" not in page.markdown
    shown = page.markdown.count("\n## ")
    assert 0 < shown < 20 and f"{20 - shown} more classes are in descriptions.json" in page.markdown
    changes = [
        ClassChange("cat", ("a new *text*",), ("an old one",), 0.5, (("cat", "a new *text*"),)),
        ClassChange("dog", (), (), 1.0),
    ]
    page = changes_page("bold-otter", changes)
    assert "1 of 2 classes are as in run bold-otter" in page.markdown and "## cat" in page.markdown
    assert "* attributes in: cat: a new" in page.markdown and "attributes" not in page.markdown.partition("## cat")[0]
    assert r"* + a new \*text\*" in page.markdown and "* − an old one" in page.markdown and "## dog" not in page.markdown
