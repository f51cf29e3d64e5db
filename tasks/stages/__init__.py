"""One file per stage: its work, its result, and what its key hangs on. tasks/pipeline.py says what each reads."""
