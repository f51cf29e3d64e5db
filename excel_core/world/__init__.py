"""The picture-book world: drawn scenes with exact masks, their captions, and the tiny CLIP trained on them."""
