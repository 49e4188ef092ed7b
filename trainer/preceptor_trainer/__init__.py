"""Preceptor's trainer: data, rollouts, objectives and the asynchronous training loop."""
