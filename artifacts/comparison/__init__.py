"""Two runs side by side: in words and tables, and as a page."""
