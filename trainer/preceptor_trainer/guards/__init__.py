"""Drift guards: what is read of a run, when a reading is a sign of drift, and what is done then."""
