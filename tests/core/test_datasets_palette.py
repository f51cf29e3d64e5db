"""The VOC colour map against known colours, and label PNGs there and back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from excel_core.datasets import palette
from excel_core.datasets.palette import VOC_PALETTE, load_labels_png, read_label_map, save_labels_png
from excel_core.errors import DataError

LABELS = np.random.default_rng(0).integers(0, 256, (9, 14), dtype=np.uint8)


def test_known_colours() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {index: tuple(VOC_PALETTE[index].tolist()) for index in known} == known
    assert VOC_PALETTE.shape == (256, 3) and len(np.unique(VOC_PALETTE, axis=0)) == 256


def test_palette_is_the_one_of_the_official_masks() -> None:
    """As VOC's development kit makes it: bits 0, 3, 6 of the label are red's highest bits, and so on."""
    for label, colour in enumerate(VOC_PALETTE.tolist()):
        bits = [[label >> (3 * place + channel) & 1 for place in range(3)] for channel in range(3)]
        assert colour == [128 * high + 64 * middle + 32 * low for high, middle, low in bits]


def test_there_and_back(tmp_path: Path) -> None:
    save_labels_png(tmp_path / "new" / "x.png", LABELS)
    np.testing.assert_array_equal(load_labels_png(tmp_path / "new" / "x.png"), LABELS)
    with Image.open(tmp_path / "new" / "x.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image.convert("RGB")), VOC_PALETTE[LABELS])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.png"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (palette.STRIP_ROWS, 3), (2 * palette.STRIP_ROWS + 1, 5)])
def test_sizes_there_and_back(tmp_path: Path, shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    save_labels_png(tmp_path / "x.png", labels)
    save_labels_png(tmp_path / "y.png", np.asfortranarray(labels))
    np.testing.assert_array_equal(load_labels_png(tmp_path / "x.png"), labels)
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()


def test_runs_take_few_bytes(tmp_path: Path) -> None:
    labels = np.zeros((375, 500), np.uint8)
    labels[100:200, 50:400] = 3
    save_labels_png(tmp_path / "x.png", labels)
    assert (tmp_path / "x.png").stat().st_size < 3000


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_other_ways_of_saving_labels(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(LABELS if mode == "L" else VOC_PALETTE[LABELS]).convert(mode)
    image.save(tmp_path / "x.png")
    np.testing.assert_array_equal(load_labels_png(tmp_path / "x.png"), LABELS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize("classes", [None, 20])
def test_numbers_that_other_programs_save_otherwise(tmp_path: Path, mode: str, classes: int | None) -> None:
    labels = np.array([[0, 1, 2], [20, 255, 7]], np.uint8)
    image = Image.fromarray(labels.astype(np.uint16)) if mode == "I;16" else Image.fromarray(labels).convert(mode)
    assert image.mode == mode
    image.save(tmp_path / "x.png")
    read = read_label_map(tmp_path / "x.png", classes)
    np.testing.assert_array_equal(read.labels, labels)
    assert not read.by_colour


def test_greys_that_are_all_vocs_stay_colours_and_white_is_none(tmp_path: Path) -> None:
    Image.fromarray(VOC_PALETTE[np.array([[0, 7]])].astype(np.uint8)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(load_labels_png(tmp_path / "x.png", 20), [[0, 7]])
    Image.fromarray(np.array([[[0] * 3, [255] * 3]], np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"\(255, 255, 255\) is not in the VOC palette"):
        load_labels_png(tmp_path / "x.png", 20)


def test_a_colour_that_is_no_label_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"\(1, 2, 3\) is not in the VOC palette"):
        load_labels_png(tmp_path / "x.png")


def test_unreadable_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such label file"):
        load_labels_png(tmp_path / "x.png")
    save_labels_png(tmp_path / "x.png", LABELS)
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:-60])
    with pytest.raises(DataError, match="not a readable label PNG"):
        load_labels_png(tmp_path / "cut.png")
    Image.fromarray(LABELS.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="labels are 0 to 255, got 63736 in 16 bits"):
        load_labels_png(tmp_path / "deep.png")


@pytest.mark.parametrize("labels", [LABELS.astype(np.int64), LABELS[None], LABELS[:0]])
def test_other_arrays_are_refused_before_anything_is_written(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(DataError, match="labels must be"):
        save_labels_png(tmp_path / "x.png", labels)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_labels_png(tmp_path / "x.png", LABELS)

    def fill_up(labels: object) -> bytes:  # called once the header is written
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(palette, "_deflated", fill_up)
    with pytest.raises(OSError, match="No space left"):
        save_labels_png(tmp_path / "x.png", LABELS * 0)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    np.testing.assert_array_equal(load_labels_png(tmp_path / "x.png"), LABELS)
