"""One file a stage: spec and input folders in, a sealed output folder out."""
