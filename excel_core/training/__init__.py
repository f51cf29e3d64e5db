"""Train the segmenter with learnable visual calibration: loop, step, losses, samples."""
