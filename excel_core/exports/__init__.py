"""What leaves the store: label maps and trained segmenters in the formats of other tools, one a file."""
