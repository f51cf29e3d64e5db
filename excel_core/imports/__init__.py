"""What comes back: labels and masks that people corrected in another tool, as a data set in the layout `folder`.

annotated.py      an image with its labels and shapes, and the label map that these make
shapes.py         the pixels of polygons, ellipses and run lengths
cvat_xml.py       CVAT's XML "for images 1.1"; cvat_masks.py: "Segmentation mask 1.1"; cvat.py: which of the two a file is
label_studio.py   Label Studio's JSON
photos.py         which photo an annotation is of
data_set.py       the folder that is written

A reader is a function that yields an `Annotated` for every image of a file. It may be read twice.
"""
