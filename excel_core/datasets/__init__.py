"""Data sets as one table of records; segmentation masks only through the evaluation-only door.

images.py     one image file → RGB pixels, or the plain reason why not
labels.py     image-level labels from labels.csv or VOC's XML
manifest.py   the table of records, and its checks
voc.py        a folder in VOC layout → that table
voc_lists.py  which images its splits list, and which are there
published_voc.py   VOC's train_aug and image-level labels, which excel ships
truth.py      the door to the masks, and the guard that keeps everything else out
"""

from excel_core.datasets.images import read_image
from excel_core.datasets.manifest import Manifest, check_manifest, usable
from excel_core.datasets.masks import VocMaskReader, forbid_mask_access
from excel_core.datasets.voc import read_voc

__all__ = [
    "Manifest",
    "VocMaskReader",
    "check_manifest",
    "forbid_mask_access",
    "read_image",
    "read_voc",
    "usable",
]
