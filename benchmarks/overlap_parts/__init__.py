"""The parts of benchmarks/overlap.py."""
