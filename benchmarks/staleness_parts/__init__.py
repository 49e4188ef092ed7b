"""The parts of benchmarks/staleness.py."""
