"""Patch-text class activation maps and what refines them: affinity, PAR, dense CRF, pseudo labels."""
