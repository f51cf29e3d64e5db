"""What a stage is, its key, its sealed output, and how one is built."""
