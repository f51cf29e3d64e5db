"""Frozen CLIP encoders and their weights, visual calibration, the trained segmenter and its files."""
