"""Readings of GPUs that do not exist, for demos and tests."""
