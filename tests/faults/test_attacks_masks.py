"""Ways past the mask guard that honest code could take by accident: which it sees, and which it says that it does not."""

import ctypes
import json
import mmap
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from excel_core.config import TrainSpec
from excel_core.datasets import forbid_mask_access
from excel_core.datasets.mask_guard import LABELS_IN_MASK_FILES, inherited_guards, mask_places
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import MaskLeakError
from excel_core.training import loading

MASK = np.random.default_rng(0).integers(0, 21, (10, 12), dtype=np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder in VOC layout with one mask, of which a hard link lies elsewhere."""
    root = tmp_path / "data"
    save_labels_png(root / "SegmentationClass" / "x.png", MASK)
    (root / "JPEGImages").mkdir()
    os.link(root / "SegmentationClass" / "x.png", root / "JPEGImages" / "linked.png")
    return root


def read_fd(fd: int) -> None:
    """Whoever got here has the file."""
    os.read(fd, 8)
    os.close(fd)


WAYS: dict[str, Callable[[Path], Any]] = {
    "FileIO": lambda mask: FileIO(mask).close(),
    "os.open": lambda mask: read_fd(os.open(mask, os.O_RDONLY)),
    "a path from /proc": lambda mask: open(f"/proc/self/root{mask}", "rb").close(),
    "mmap": lambda mask: mmap.mmap(os.open(mask, os.O_RDONLY), 0, access=mmap.ACCESS_READ),
    "shutil.copy": lambda mask: shutil.copy(mask, mask.parent.parent / "copy.png"),
    "shutil.copytree": lambda mask: shutil.copytree(mask.parent, mask.parent.parent / "copies"),
    "shutil.move": lambda mask: shutil.move(mask, mask.parent.parent / "moved.png"),
    "os.rename": lambda mask: os.rename(mask, mask.parent.parent / "renamed.png"),
    "os.rename of the folder": lambda mask: os.rename(mask.parent, mask.parent.parent / "renamed"),
    "os.replace over it": lambda mask: os.replace(_file(mask.parent.parent / "new.png"), mask),
    "os.link": lambda mask: os.link(mask, mask.parent.parent / "link.png"),
    "Path.hardlink_to": lambda mask: (mask.parent.parent / "link.png").hardlink_to(mask),
    "a symbolic link": lambda mask: _linked(mask, mask.parent.parent / "soft.png").read_bytes(),
    "a link to a link to its folder": lambda mask: (
        _linked(_linked(mask.parent, mask.parent.parent / "a"), mask.parent.parent / "b") / "x.png"
    ).read_bytes(),
    "a hard link from before": lambda mask: (mask.parent.parent / "JPEGImages" / "linked.png").read_bytes(),
    "Pillow, by the hard link": lambda mask: Image.open(mask.parent.parent / "JPEGImages" / "linked.png").load(),
    "a zip file made of it": lambda mask: zipfile.ZipFile(BytesIO(), "w").write(mask),
    "np.load": lambda mask: np.load(mask, allow_pickle=False),
    "subprocess": lambda mask: subprocess.run(["cat", mask], capture_output=True),
    "subprocess with a folder": lambda mask: subprocess.run(["cat", "x.png"], cwd=mask.parent, capture_output=True),
    "subprocess, an option": lambda mask: subprocess.run(["tar", f"--file={mask}", "-t"], capture_output=True),
    "a shell": lambda mask: subprocess.run(f"cat '{mask}'", shell=True, capture_output=True),
    "os.system": lambda mask: os.system(f"cat <{mask} >/dev/null"),
    "os.popen": lambda mask: os.popen(f"cat {mask}").read(),
    "os.posix_spawn": lambda mask: os.waitpid(os.posix_spawn("/bin/cat", ["cat", str(mask)], os.environ), 0),
    "the hard link, by a program": lambda mask: subprocess.run(
        ["cat", mask.parent.parent / "JPEGImages" / "linked.png"], capture_output=True
    ),
}


def _linked(target: Path, link: Path) -> Path:
    link.symlink_to(target)
    return link


def _file(path: Path) -> Path:
    path.write_bytes(b"x")
    return path


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", WAYS)
def test_seen(data: Path, name: str) -> None:
    mask = data / "SegmentationClass" / "x.png"
    before = mask.read_bytes()
    with (
        forbid_mask_access(*mask_places("voc", data), stage="cams"),
        pytest.raises(MaskLeakError, match=r"^cams: .* only eval"),
    ):
        WAYS[name](mask)
    assert mask.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what is open")
@pytest.mark.parametrize("way", ["a file", "a descriptor", "a map", "np.memmap"])
def test_a_mask_that_is_open_when_the_guard_begins_is_seen(data: Path, way: str) -> None:
    mask = data / "SegmentationClass" / "x.png"
    with open(mask, "rb") as file:
        handles = {
            "a file": lambda: FileIO(mask),
            "a descriptor": lambda: FileIO(os.open(mask, os.O_RDONLY)),
            "a map": lambda: mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ),
            "np.memmap": lambda: np.memmap(mask, mode="r")._mmap,
        }
        handle: Any = handles[way]()
    with pytest.raises(MaskLeakError, match="train: a handle from before"), forbid_mask_access(stage="train"):
        pass
    handle.close()
    with forbid_mask_access(stage="train"):
        pass


def test_a_folder_that_is_open_when_the_guard_begins_is_seen(data: Path) -> None:
    """Files could be opened below it without naming it (dir_fd), which no hook sees."""
    folder = os.open(data / "SegmentationClass", os.O_RDONLY)
    with pytest.raises(MaskLeakError), forbid_mask_access():
        pass
    os.close(folder)


def _read(guards: Any, path: Path, answers: Any) -> None:
    guards()
    try:
        answers.put(f"read {len(path.read_bytes())} bytes")
    except MaskLeakError as error:
        answers.put(f"refused: {error}")


def test_a_spawned_worker_inherits_the_guards(data: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    path = data / "JPEGImages" / "linked.png"
    with forbid_mask_access(*mask_places("voc", data), stage="train"):
        worker = context.Process(target=_read, args=(inherited_guards(), path, answers))
        worker.start()
    assert answers.get(timeout=120).startswith("refused: train: open of the segmentation mask")
    worker.join(30)


class Reading:
    """As far as the training loop looks at its batches: each reads a file."""

    spec = TrainSpec(workers=1)

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> list[bytes]:
        return [self.path.read_bytes()]


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_data_loaders_workers_are_guarded(data: Path, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the loader takes on this system, on Linux fork, on macOS spawn.
    context = multiprocessing.get_context(start)
    monkeypatch.setattr(loading, "DataLoader", partial(DataLoader, multiprocessing_context=context))
    batches: Any = Reading(data / "SegmentationClass" / "x.png")
    assert len(list(loading.loaded(batches, 0, torch.device("cpu")))) == 1
    with forbid_mask_access(stage="train"), pytest.raises(MaskLeakError, match=r"^train: open of the segmentation mask"):
        list(loading.loaded(batches, 0, torch.device("cpu")))


def test_a_thread_that_is_older_than_the_guard_is_guarded(data: Path) -> None:
    began, answers = threading.Event(), []

    def work() -> None:
        began.wait(30)
        try:
            answers.append((data / "JPEGImages" / "linked.png").read_bytes())
        except MaskLeakError:
            answers.append(b"refused")

    thread = threading.Thread(target=work)
    thread.start()
    with forbid_mask_access(*mask_places("voc", data)):
        began.set()
        thread.join()
    assert answers == [b"refused"]


def test_an_inode_that_another_file_got_is_no_mask(data: Path) -> None:
    """A mask is deleted while a stage runs, and its number given to a file of the stage's own."""
    mask, other = data / "SegmentationClass" / "x.png", data / "JPEGImages" / "linked.png"
    with forbid_mask_access(*mask_places("voc", data)):
        mask.unlink()
        assert other.read_bytes()  # the very inode, under no mask's name any more


def test_the_masks_of_one_layout_are_not_those_of_another(tmp_path: Path) -> None:
    """COCO's guard holds below its data folder: another file called so elsewhere is a mask by its name alone."""
    (tmp_path / "annotations").mkdir()
    for name in ("instances_train.json", "captions_train.json"):
        (tmp_path / "annotations" / name).write_text(json.dumps({}))
    places = mask_places("coco", tmp_path)
    assert [place.name for place in places] == ["instances_train.json"] and mask_places("voc", tmp_path) == []
    os.link(places[0], tmp_path / "linked.json")
    with forbid_mask_access(*places):
        assert (tmp_path / "annotations" / "captions_train.json").read_text()
        with pytest.raises(MaskLeakError):
            (tmp_path / "linked.json").read_text()
    with forbid_mask_access(*places, exempt=LABELS_IN_MASK_FILES):  # the stage that reads labels
        assert places[0].read_text() and (tmp_path / "linked.json").read_text()


UNSEEN: dict[str, Callable[[Path], Any]] = {
    "C code": lambda mask: ctypes.CDLL(None).open(os.fsencode(mask), os.O_RDONLY),
    "a folder's contents, by a program": lambda mask: subprocess.check_output(["tar", "-cf", "-", mask.parent.parent]),
    "a copy": lambda mask: (mask.parent.parent / "copy.png").read_bytes(),
    "an archive": lambda mask: zipfile.ZipFile(mask.parent.parent / "masks.zip").read("x.png"),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", UNSEEN)
def test_not_seen_as_the_guard_says(data: Path, name: str) -> None:
    """What the guard's docstring says that it does not see. A test of excel's own modules keeps such readers out."""
    mask = data / "SegmentationClass" / "x.png"
    shutil.copy(mask, data / "copy.png")
    with zipfile.ZipFile(data / "masks.zip", "w") as archive:
        archive.write(mask, "x.png")
    with forbid_mask_access(*mask_places("voc", data)):
        read = UNSEEN[name](mask)
    if isinstance(read, int):
        os.close(read)
