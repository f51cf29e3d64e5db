"""The picture-book world: drawn scenes with exact masks, their captions, and the tiny CLIP trained on them.

scenes.py       one scene: objects on a ground, with its mask, from a seed
objects.py      how each class is drawn
backgrounds.py  how each ground is drawn
voc_layout.py   scenes written as a data set in VOC layout
phrases.py      what can be said of each class
captions.py     phrases, and whether they are true of a view
views.py        training views: crops of scenes with the facts visible in them
tiny_clip.py    the tiny CLIP while it is trained: encoders of some patches and of texts, loss
train_clip.py   the training of the shipped tiny CLIP
"""
