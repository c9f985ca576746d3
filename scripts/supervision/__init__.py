"""Keeps vLLM, gateway and GPU exporter running: the parts of watchdog.py and processes.py."""
