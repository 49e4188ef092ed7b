"""Parts of the judge benchmark: see `benchmarks.judge`."""
