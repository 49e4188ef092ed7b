"""The parts of benchmarks/shared_prefix.py."""
