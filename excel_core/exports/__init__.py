"""What leaves the store: label maps and trained segmenters in the formats of other tools.

formats.py         the table of formats of label maps
label_maps.py      label maps on disk, and the two plain formats: palette PNGs, and one binary mask per class
coco.py            a COCO annotation file; coco_results.py: COCO results; coco_numbers.py: the data set's own numbers
yolo.py            YOLO segmentation labels, for ultralytics
label_studio.py    Label Studio's pre-annotations; brush_runs.py: the run lengths of its brush
cvat.py            a zip for CVAT's "Segmentation mask 1.1"; cvat_images.py: "CVAT for images 1.1"
image_masks.py     photos and masks beside each other, for FiftyOne and training code
voc_submission.py  the archive for VOC's evaluation server
onnx_graph.py      the trained segmenter as an ONNX graph
outlines.py        a mask as polygons; photos.py: the photos taken along
folder.py          the folder that an export fills, completely or not at all

A new format of label maps is a function `write_…(folder, class_names, maps) → what export.json says of it`, and its entry in
LABEL_FORMATS.
"""
