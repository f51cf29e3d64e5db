"""The layouts that a data folder can have. A layout is one entry of LAYOUTS.

To add the layout `mine`:

1. excel_core/datasets/mine.py: a function that lists the images of each split as `ListedImage` and hands them to
   `build_manifest` (manifest.py). folder.py is the shortest model. It must open no mask.
2. The entry in LAYOUTS, here. `sources` names what the reader looks at. Where masks lie beside photos, it names files, not
   their folder: else an edited mask reruns `dataset`.
3. Masks that are label PNGs in SegmentationClass/ are read by `voc_mask_reader`. For others, write a `MaskReader` (masks.py)
   whose `read` begins with `check_mask_access`. It gets the class names in the run's order: label i + 1 is class i of these.
   Map the data set's own numbers by name.
4. mask_guard.py, where the masks do not lie in VOC's folders: in PLACES, the folders or patterns of files below the data folder
   that hold them, so that the guard protects them in runs of this layout. A file with labels and polygons, such as labelme's,
   needs its pattern in LABELS_IN_MASK_FILES too, so that `dataset` may read the labels.
5. excel_core/config/data.py: the name in `DatasetSpec.layout`. A setting for this layout alone is a field there, and its name
   stands in `options` here.
6. tests/core/test_datasets_mine.py: a small folder, drawn in the test, and what is refused.
7. Optional: what `excel doctor` looks at (excel_core/datasets/doctor/, flows/cli/doctor.py).

A run takes it with the command below; a preset (excel_core/config/presets.py) saves the settings. `dataset.prompts=data` takes
the classes of classes.yaml in the folder, else those that the entry's `class_names` tells. With fewer than six classes there
are fewer descriptions than the preset's 112 attributes: add `--set knowledge.attributes=null`.

    excel run voc --data DIR --set dataset.layout=mine --set dataset.prompts=data \\
        --set dataset.train_split=training --set 'dataset.seed_splits=[training]' --set 'dataset.val_splits=[validation]'
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.datasets.coco import COCO_SOURCES, check_coco_layout, check_coco_splits, read_coco
from excel_core.datasets.coco_masks import coco_mask_reader
from excel_core.datasets.folder import (
    check_folder,
    check_folder_splits,
    folder_class_names,
    folder_decode_options,
    folder_sources,
    read_folder,
)
from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.datasets.left_out import LeftOut, left_out_of_folder
from excel_core.datasets.links import LINK_ADVICE, links_out
from excel_core.datasets.manifest import Manifest
from excel_core.datasets.mask_guard import mask_places
from excel_core.datasets.masks import MaskReader, folder_mask_reader, voc_mask_reader
from excel_core.datasets.voc import check_voc_layout, check_voc_splits, read_voc
from excel_core.errors import DataError, and_more

__all__ = ["LAYOUTS", "Layout", "check_links", "decode_options", "read_data_set", "refused_links"]

TABLES = ("labels.csv", "classes.yaml", "classes.json")
MAX_NAMED = 3  # links in a message


@dataclass(frozen=True)
class Layout:
    """How one kind of data folder is read.

    read(root, splits, class_names, unlabelled=…, max_bad=…, **options) → the manifest
    mask_reader(root, split, class_names) → the split's masks, for evaluation
    sources(root) → the files and folders under the root that `read` looks at; the dataset stage's cache key holds them
    check(root): DataError, within a moment, for a folder of another layout
    check_splits(root, spec, class_names): DataError, naming the setting, for a split that is not there
    class_names(root) → the classes that the data folder itself names; None: it names none
    options: the fields of DatasetSpec that `read` takes beside the common ones
    left_out(root, spec, class_names, store) → what a run leaves out of the folder, with reasons; the store may lie in the root
    decode(spec) → how every stage decodes the images; the manifest's sizes are of images decoded so
    """

    read: Callable[..., Manifest]
    mask_reader: Callable[[Path, str, tuple[str, ...]], MaskReader]
    sources: Callable[[Path], Sequence[str]]
    check: Callable[[Path], None]
    check_splits: Callable[[Path, DatasetSpec, Sequence[str]], None]
    class_names: Callable[[Path], tuple[str, ...]] | None = None
    options: frozenset[str] = frozenset()
    left_out: Callable[[Path, DatasetSpec, Sequence[str], Path | None], list[LeftOut]] = lambda *_: []
    decode: Callable[[DatasetSpec], DecodeOptions] = lambda spec: AS_STORED  # masks fit the pixels as they are stored


def _voc(options: frozenset[str]) -> Layout:
    return Layout(
        read=read_voc,
        mask_reader=voc_mask_reader,
        sources=lambda root: ("JPEGImages", "Annotations", "ImageSets", "labels.csv"),
        check=lambda root: check_voc_layout(root, labels_needed=False),  # check_voc_splits knows which images need some
        check_splits=check_voc_splits,
        options=options,
    )


LAYOUTS: dict[str, Layout] = {
    "voc": _voc(frozenset({"labels", "partial"})),
    "world": _voc(frozenset()),  # drawn by excel_core/world, in VOC layout and complete
    "coco": Layout(
        read=read_coco,
        mask_reader=coco_mask_reader,
        sources=lambda root: COCO_SOURCES,
        check=check_coco_layout,
        check_splits=check_coco_splits,
    ),
    "folder": Layout(
        read=read_folder,
        mask_reader=folder_mask_reader,
        sources=folder_sources,
        check=check_folder,
        check_splits=check_folder_splits,
        class_names=folder_class_names,
        options=frozenset({"max_side"}),
        left_out=left_out_of_folder,
        decode=lambda spec: folder_decode_options(spec.max_side),
    ),
}


def read_data_set(root: Path, spec: DatasetSpec, class_names: Sequence[str]) -> Manifest:
    """Read every split that `spec` names from the data folder root → Manifest; errors as of the layout's `read`.

    Of each split at most `spec.max_images` rows. `attrs` may hold "left_out" and "absent": by split, how many images the
    layout leaves out because they have no object, and because they are not in the folder.
    """
    layout = LAYOUTS[spec.layout]
    manifest = layout.read(
        root,
        list(spec.settings_of_splits),
        class_names,
        unlabelled=spec.test_splits,
        max_bad=spec.max_bad,
        **spec.model_dump(include=set(layout.options)),
    )
    if spec.max_images is None:
        return manifest
    attrs = manifest.attrs
    manifest = manifest.groupby("split", sort=False).head(spec.max_images).reset_index(drop=True)
    manifest.attrs = attrs
    return manifest


def check_links(root: Path, layout: str) -> None:
    """DataError, in one line, for `refused_links`."""
    links = refused_links(root, layout)
    if links:
        what = "a symbolic link leads" if len(links) == 1 else f"{len(links):,} symbolic links lead"
        raise DataError(f"{root}: {what} out of the data folder: {and_more(links, MAX_NAMED)}; {LINK_ADVICE}")


def refused_links(root: Path, layout: str) -> list[str]:
    """What a run would read of the data folder, photos, masks, lists and tables, that is a link to a file outside it: paths
    relative to root, sorted. Opens no mask, and no table before it was looked at; DataError as of the layout's `sources`."""
    return links_out(root, TABLES) or links_out(root, [*LAYOUTS[layout].sources(root), *mask_places(layout, root)])


def decode_options(spec: DatasetSpec) -> DecodeOptions:
    """How every stage of a run decodes the images of its data set."""
    return LAYOUTS[spec.layout].decode(spec)
