"""The guard: whoever opens a mask while it is active fails, by any way, in any thread and forked worker."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from excel_core.datasets import VocMaskReader, forbid_mask_access, read_image, read_voc
from excel_core.datasets.palette import VOC_PALETTE, load_labels_png, save_labels_png
from excel_core.errors import DataError, MaskLeakError
from tests.voc_folder import NAMES, TRAIN, VAL, write_voc

MASK = np.random.default_rng(0).integers(0, 21, (10, 12), dtype=np.uint8)

OPENERS: dict[str, Callable[[Path], Any]] = {
    "open": lambda path: open(path, "rb").close(),
    "open bytes": lambda path: open(os.fsencode(path), "rb").close(),
    "open to write": lambda path: open(path, "ab").close(),
    "Path.read_bytes": lambda path: path.read_bytes(),
    "os.open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "Image.open": lambda path: Image.open(path).load(),
    "np.fromfile": lambda path: np.fromfile(path, dtype=np.uint8),
    "np.memmap": lambda path: np.memmap(path, mode="r"),
    "read_image": read_image,
    "load_labels_png": load_labels_png,
    "dotted": lambda path: open(path.parent / ".." / path.parent.name / path.name, "rb").close(),
    "its folder": lambda path: os.close(os.open(path.parent, os.O_RDONLY)),
}


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    path = tmp_path / "SegmentationClass" / "x.png"
    save_labels_png(path, MASK)
    return path


@pytest.mark.parametrize("name", OPENERS)
def test_every_way_of_opening_is_seen(mask: Path, name: str) -> None:
    OPENERS[name](mask)
    with forbid_mask_access(stage="cams"), pytest.raises(MaskLeakError, match="^cams: open of the segment"):
        OPENERS[name](mask)
    OPENERS[name](mask)  # and the guard ends with its block


def test_the_error_names_path_and_next_step(mask: Path) -> None:
    with forbid_mask_access(), pytest.raises(MaskLeakError) as caught:
        mask.read_bytes()
    assert str(mask) in str(caught.value) and "evaluate stage" in str(caught.value)


@pytest.mark.parametrize("folder", ["SegmentationClassAug", "SegmentationObject", "segmentationclass"])
def test_other_names_are_protected_at_any_depth(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "deep" / "x.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    with forbid_mask_access(), pytest.raises(MaskLeakError):
        path.read_bytes()


def test_a_given_folder_is_protected_and_its_neighbours_are_not(tmp_path: Path) -> None:
    for name in ("gt", "gt2", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x").write_bytes(b"x")
    with forbid_mask_access(tmp_path / "gt"):
        with pytest.raises(MaskLeakError):
            (tmp_path / "gt" / "x").read_bytes()
        assert (tmp_path / "gt2" / "x").read_bytes() == b"x"
        assert (tmp_path / "ImageSets" / "Segmentation" / "x").read_bytes() == b"x"


def test_symbolic_links_do_not_help(mask: Path, tmp_path: Path) -> None:
    (tmp_path / "innocent.png").symlink_to(mask)
    (tmp_path / "innocent").symlink_to(mask.parent)
    with forbid_mask_access():
        for path in (tmp_path / "innocent.png", tmp_path / "innocent" / "x.png"):
            with pytest.raises(MaskLeakError):
                path.read_bytes()


def test_a_mask_folder_that_is_a_link_is_protected_under_both_names(tmp_path: Path) -> None:
    save_labels_png(tmp_path / "elsewhere" / "x.png", MASK)
    link = tmp_path / "SegmentationClass"
    link.symlink_to(tmp_path / "elsewhere")
    with forbid_mask_access(), pytest.raises(MaskLeakError):  # its name alone is enough
        (link / "x.png").read_bytes()
    with forbid_mask_access(link):
        for path in (link / "x.png", tmp_path / "elsewhere" / "x.png"):
            with pytest.raises(MaskLeakError):
                path.read_bytes()


def test_a_relative_path_is_resolved(mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mask.parent)
    with forbid_mask_access(), pytest.raises(MaskLeakError):
        open("x.png", "rb").close()


def test_threads_are_guarded(mask: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(mask.read_bytes).result()  # the threads are older than the guard
        with forbid_mask_access(), pytest.raises(MaskLeakError):
            pool.submit(mask.read_bytes).result()


def test_a_guard_in_one_thread_holds_in_the_others(mask: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def guarded() -> None:
        with forbid_mask_access():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=guarded)
    thread.start()
    assert entered.wait(10)
    with pytest.raises(MaskLeakError):
        mask.read_bytes()
    leave.set()
    thread.join()
    mask.read_bytes()


def _try_to_read(path: Path, answers: Any) -> None:
    try:
        answers.put(f"read {len(path.read_bytes())} bytes")
    except MaskLeakError as error:
        answers.put(f"refused: {error}")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers_are_guarded(mask: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with forbid_mask_access(stage="train"):
        worker = context.Process(target=_try_to_read, args=(mask, answers))
        worker.start()
        assert answers.get(timeout=30).startswith("refused: train: open of the segmentation mask")
        worker.join(30)
    worker = context.Process(target=_try_to_read, args=(mask, answers))
    worker.start()
    assert answers.get(timeout=30) == f"read {len(mask.read_bytes())} bytes"
    worker.join(30)


def test_guards_nest_and_end_with_an_exception(mask: Path) -> None:
    with forbid_mask_access():
        with forbid_mask_access():
            pass
        with pytest.raises(MaskLeakError):
            mask.read_bytes()
    with pytest.raises(RuntimeError), forbid_mask_access():
        raise RuntimeError
    mask.read_bytes()


def test_reading_the_data_set_opens_no_mask(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    with forbid_mask_access(root / "SegmentationClass"):
        assert len(read_voc(root, ["train", "val"], NAMES)) == len(TRAIN) + len(VAL)


def test_an_image_that_links_to_a_mask_ends_the_reading(tmp_path: Path, mask: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "a.png").symlink_to(mask)
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    (tmp_path / "labels.csv").write_text("image,labels\na,dog\n")
    assert len(read_voc(tmp_path, ["train"], ["dog"])) == 1
    with forbid_mask_access(), pytest.raises(MaskLeakError):
        read_voc(tmp_path, ["train"], ["dog"])


def test_the_reader_reads_indices(mask: Path, tmp_path: Path) -> None:
    read = VocMaskReader(tmp_path).read("x", 10, 12)
    np.testing.assert_array_equal(read, MASK)
    assert read.dtype == np.uint8


def test_the_reader_decodes_colours(tmp_path: Path) -> None:
    (tmp_path / "gt").mkdir()
    Image.fromarray(VOC_PALETTE[MASK]).save(tmp_path / "gt" / "x.png")
    np.testing.assert_array_equal(VocMaskReader(tmp_path, "gt").read("x", 10, 12), MASK)


def test_what_the_reader_refuses(mask: Path, tmp_path: Path) -> None:
    reader = VocMaskReader(tmp_path)
    with pytest.raises(DataError, match="the mask is 10 high and 12 wide, expected 12 high and 10 wide"):
        reader.read("x", 12, 10)
    with pytest.raises(DataError, match="no mask for y"):
        reader.read("y", 10, 12)
    with pytest.raises(DataError, match="an image id is one file name"):
        reader.read("../x", 10, 12)
    other = VocMaskReader(tmp_path, "gt")  # a name that the guard does not know
    with forbid_mask_access(stage="train"), pytest.raises(MaskLeakError, match=r"train: VocMaskReader\.read of the"):
        other.read("x", 10, 12)
