"""What leaves the store: label maps and trained segmenters in the formats of other tools.

label_maps.py      label maps on disk, and the two plain formats: palette PNGs, and one binary mask per class
coco_results.py    COCO results, with the data set's own numbers
cvat.py            a zip for CVAT's "Segmentation mask 1.1"
voc_submission.py  the archive for VOC's evaluation server
onnx_graph.py      the trained segmenter as an ONNX graph
folder.py          the folder that an export fills, completely or not at all

A new format of label maps is a function `write_…(folder, class_names, maps) → what export.json says of it`, and its entry in
LABEL_FORMATS (tasks/photos/export.py).
"""
