"""Label photos: by a trained segmenter, or by a frozen CLIP and class names alone."""
