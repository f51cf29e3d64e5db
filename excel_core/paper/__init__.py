"""What the paper's figures 4 to 6 show, as arrays: one figure a file."""
