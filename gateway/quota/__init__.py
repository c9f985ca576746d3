"""Tokens per key and day: what is used, what running requests hold, and its journal on disk."""
