"""Data sets: one table of images per data folder. Only evaluation reads segmentation masks, through mask readers.

layouts.py        the layouts a data folder can have; to add one, start here
manifest.py       the table of images, its checks, and how a layout's images become its rows
images.py         one image file → RGB pixels, or the plain reason why not
labels.py         image-level labels from labels.csv or VOC's XML
lists.py          lists of images, one id a line
voc.py            a folder in VOC layout → the table
published_voc.py  VOC's train_aug list and image-level labels, which excel ships
folder.py         a folder of one's own photos → the table
photo_files.py    which files are photos, and how a name finds its file
left_out.py       what is left out of such a folder, and why
coco.py           COCO as downloaded → the table
coco_json.py      COCO's annotation files, every entry checked
label_files.py    which file is an image's label map
masks.py          the mask readers of evaluation
mask_guard.py     the guard that stops everyone else from opening a mask
coco_masks.py     COCO's masks, painted from its annotation files
palette.py        label maps as palette PNGs
doctor/           is a downloaded data set complete and sound?
"""

from excel_core.datasets.images import read_image
from excel_core.datasets.manifest import Manifest, check_manifest, usable
from excel_core.datasets.mask_guard import forbid_mask_access
from excel_core.datasets.masks import VocMaskReader
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
