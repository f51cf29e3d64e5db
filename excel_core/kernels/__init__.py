"""Loops over pixels: on a CPU in C (loops/*.c, loaded by compiled.py), on a GPU in Triton."""
