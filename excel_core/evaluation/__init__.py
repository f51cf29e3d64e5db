"""Scores and their intervals, protocols, the ablation, the learning curve, parity with published programs."""
