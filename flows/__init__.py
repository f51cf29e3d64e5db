"""Prefect flows: the whole chain, each stage alone, and the command line over them."""
