"""Parts of the benchmarks of rollouts and of weight sync."""
