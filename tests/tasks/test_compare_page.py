"""Two runs as a page: which images it has, that no mask is opened for it, when it is made anew, and when it goes."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from excel_core.config.presets import with_settings
from excel_core.errors import DataError, MaskLeakError, SettingError
from excel_core.files import read_json
from excel_core.stores import read_counts
from tasks.engine.executor import Step, build_stage, complete_output
from tasks.engine.stage import RunEnvironment, mask_access
from tasks.history.compare import compare_runs, comparison_job
from tasks.history.garbage import find_garbage
from tasks.history.garbage_removal import remove_garbage
from tasks.history.verify import verify_store
from tasks.stages.compare import COMPARE, compared_result
from tests.mask_watch import opened_masks
from tests.pipeline_runs import recorded

KEY = "seeds.static.train.crf"
SEEDS = ["evaluate.kinds=[static]", "evaluate.ablation=false"]


@pytest.fixture(scope="module")
def environment(chain, tmp_path_factory):
    """A store of this file alone, with what the small run's label maps are made from."""
    store = tmp_path_factory.mktemp("compared") / "store"
    left_out = shutil.ignore_patterns("records", "report*", "ablation*", "sweep*", "dynamic*", "predict*", "train", "evaluate*")
    shutil.copytree(chain[1].store, store, symlinks=True, ignore=left_out)
    return RunEnvironment(store=store)


@pytest.fixture(scope="module")
def runs(small_run, environment):
    """Two runs' records: the second one's CRF ends early."""
    settings = (SEEDS, [*SEEDS, "refine.crf.iterations=1"])
    return [recorded(with_settings(small_run, each), environment, "evaluate")[0] for each in settings]


@pytest.fixture(scope="module")
def written(runs):
    """(comparison, its job, its output, masks that were opened for it)."""
    comparison = compare_runs(*runs)
    job = comparison_job(*runs, comparison)
    with opened_masks() as masks:
        output = build_stage(job)
    return comparison, job, output, masks


def _data(page, element):
    return [json.loads(html.unescape(text)) for text in re.findall(rf"<pre hidden {element}>(.*?)</pre>", page, re.S)]


@pytest.fixture(scope="module")
def explored(written):
    """The rows of the images of B and of A."""
    page = (written[2].folder / "index.html").read_text()
    (b,), (a,) = _data(page, 'id="explorer-data"'), _data(page, 'id="paired-data"')
    return b, a


def _foreground_iou(record, image):
    """By another way of computing it: from the stored counts of one image."""
    counts = read_counts(record.output("evaluate") / "confusion.parquet")
    own = counts[(counts["result"] == KEY) & (counts["image"] == image)]
    hit = own[(own["truth"] == own["predicted"]) & (own["truth"] > 0)]["pixels"].sum()
    return hit / own[(own["truth"] > 0) | (own["predicted"] > 0)]["pixels"].sum()


def test_the_page_shows_what_changed_most_first(written, runs, explored):
    comparison, _, output, _ = written
    assert {path.name for path in output.folder.iterdir()} == {
        "comparison.json",
        "classes.png",
        "images.png",
        "index.html",
        "stage.json",
    }
    assert read_json(output.folder / "comparison.json") == comparison and comparison["result"] == KEY
    b, a = explored
    assert (b["name"], a["name"]) == ("B", "A") and [row["id"] for row in b["images"]] == [row["id"] for row in a["images"]]
    changes = []
    for row_b, row_a in zip(b["images"], a["images"], strict=True):
        for record, row in zip(runs, (row_a, row_b), strict=True):
            assert row["scores"]["static.crf"]["iou"] == pytest.approx(_foreground_iou(record, row["id"]))
        changes.append(abs(row_b["scores"]["static.crf"]["iou"] - row_a["scores"]["static.crf"]["iou"]))
    assert changes == sorted(changes, reverse=True) and min(changes) > 0
    assert output.result == {"images": len(changes)}
    for name in ("classes.png", "images.png"):
        with Image.open(output.folder / name) as picture:
            assert picture.width >= 800 and np.asarray(picture.convert("L")).std() > 10


def test_nothing_is_left_out_without_a_word(written, explored):
    page = html.unescape((written[2].folder / "index.html").read_text())
    shown, total = len(explored[0]["images"]), written[0]["images_shared"]
    assert total == 12 and f"Shown: {shown} of 12 shared images, those whose foreground IoU changed most" in page
    (note,) = re.findall(r"Shown: (.*?)\.</p>", page)
    numbers = [int(number) for number in re.findall(r"(?:^|; )(\d+) ", note)]
    assert numbers[0] == shown and sum(numbers) == total  # each image is shown, or counted with the reason
    for words in ("refine.crf.iterations", "A better", "no clear difference", "few images", written[0]["a"], written[0]["b"]):
        assert words in page


def test_photos_are_there_once_and_nothing_is_asked_of_the_network(written):
    page = (written[2].folder / "index.html").read_text()
    b, a = _data(page, 'class="picture-data"'), _data(page, 'class="paired-picture-data"')
    assert all(picture["photo"] for picture in b) and not any(picture["photo"] for picture in a)
    assert "://" not in page and "connect-src" not in page
    assert list(a[0]["maps"]) == list(b[0]["maps"]) == [f"static.{step}" for step in ("raw", "affinity", "par", "crf")]


def test_it_opens_no_mask(written, environment):
    _, job, _, masks = written
    assert masks == set()
    mask = next(environment.store.glob("world/*/SegmentationClass/*.png"))
    with mask_access(job), pytest.raises(MaskLeakError, match="compare: .*only evaluation may see masks"):
        Image.open(mask)


def test_it_is_made_once(written, runs):
    _, job, output, _ = written
    assert complete_output(Step(comparison_job(*runs, compare_runs(*runs)))).key == output.key
    assert build_stage(job).key == output.key
    other = compare_runs(*runs, "seeds.static.train.par")  # the edit does not touch it
    nothing = build_stage(comparison_job(*runs, other))
    assert nothing.key != output.key and nothing.result == {"images": 0} and not (nothing.folder / "images.png").exists()
    page = (nothing.folder / "index.html").read_text()
    assert "None is shown: 0 of 12 shared images" in page and "12 with the same foreground IoU" in page
    assert 'id="explorer-data"' not in page


def test_an_image_whose_photo_changed_is_not_shared(runs, environment, tmp_path, small_run):
    """Of the same name, but another photo: a difference of the two would be one of photos."""
    world = with_settings(small_run, [*SEEDS, "dataset.scene_size=96"])
    other, _ = recorded(world, environment, "evaluate")
    with pytest.raises(SettingError, match="share no image of .*from the same photo"):
        compare_runs(runs[0], other)
    other.path.unlink()


def test_what_is_gone_is_refused_in_one_line(runs, environment, tmp_path):
    store = shutil.copytree(environment.store, tmp_path / "store", symlinks=True)
    a, b = (record.model_copy(update={"store": store}) for record in runs)
    comparison = compare_runs(a, b)
    (store / "refine" / b.own["refine"] / "stage.json").unlink()
    with pytest.raises(SettingError, match=f"run {b.id}: its refine was removed or damaged; run it again"):
        comparison_job(a, b, comparison)
    moved = runs[1].model_copy(
        update={"own": {k: v for k, v in runs[1].own.items() if k != "world"}, "data": str(tmp_path / "gone")}
    )
    with pytest.raises(
        SettingError, match=r"its photos in .*gone are not there any more; bring them back, or leave out --page"
    ):
        comparison_job(runs[0], moved, comparison)


def test_a_photo_that_was_replaced_since_is_refused(runs, written, tmp_path):
    job = written[1]
    data = shutil.copytree(job.folder("world"), tmp_path / "data")
    photo = data / "JPEGImages" / f"{json.loads((written[2].folder / 'comparison.json').read_text())['images'][0]['id']}.jpg"
    Image.new("RGB", (128, 128)).save(photo)
    inputs = {name: output for name, output in job.inputs.items() if name != "world"}
    environment = job.environment.model_copy(update={"data": data, "store": tmp_path / "store"})
    moved = type(job)(COMPARE, job.run, environment, inputs, other=job.other, comparison=job.comparison, shared=job.shared)
    with pytest.raises(DataError, match=f"{photo.name}: was changed since the runs"):
        build_stage(moved)


def test_it_stays_as_long_as_both_runs(runs, written, environment, tmp_path):
    store = shutil.copytree(environment.store, tmp_path / "store", symlinks=True)
    assert verify_store(store).damaged == {} and verify_store(store).unknown == []
    kept = [item.path.name for item in find_garbage(store) if item.kind == COMPARE.name]
    assert kept == []
    found = find_garbage(store, keep=1)
    assert written[2].key in {item.path.name for item in found if item.kind == COMPARE.name}
    remove_garbage(store, found, keep=1)
    assert not (store / COMPARE.name / written[2].key).exists()


@pytest.mark.parametrize(
    ("key", "split", "expected"),
    [
        ("seeds.static.train.crf", "train", ("static", "train", "crf")),
        ("seeds.lvc.train.aug.raw", "train.aug", ("lvc", "train.aug", "raw")),
        ("segmentation.val.multi_scale_crf", "val", ("segmentation", "val", "multi_scale_crf")),
    ],
)
def test_a_result_key_says_which_label_maps_it_is_of(key, split, expected):
    assert tuple(compared_result(key, split)) == expected
