"""Is a downloaded data set complete and sound? Looks at everything, masks included; never part of a run.

checks.py   what a check found, and what to do about it
links.py    links out of the data folder, of any layout
voc.py      PASCAL VOC 2012, with SBD's augmented masks: its lists
voc_image.py   one of its images and the mask
coco.py     COCO's annotation files and images
photos.py   a folder of one's own photos
photo_masks.py   masks beside such a folder
"""
