"""The nano world: a generated world with its corpus, its teacher and its oracle, small enough to train in minutes."""
