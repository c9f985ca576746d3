"""Readings from NVIDIA's driver; the only room that knows pynvml."""
