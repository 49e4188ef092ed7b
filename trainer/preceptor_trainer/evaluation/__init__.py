"""Evaluation: generations on held-out windows, measured by a judge or, in the nano world, by the oracle."""
