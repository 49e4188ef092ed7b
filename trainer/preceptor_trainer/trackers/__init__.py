"""Training logs beyond the run's own folder: TensorBoard, W&B, trackio. See docs/training-logs.md."""
