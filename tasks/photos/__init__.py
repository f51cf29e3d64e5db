"""Outside the chain: single photos, and a run's results taken away."""
