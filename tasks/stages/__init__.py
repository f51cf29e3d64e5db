"""One file per stage: its work, its result, and what its key holds. tasks/pipeline.py says what each reads."""
