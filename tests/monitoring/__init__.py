"""The monitoring stack: its files, its rules, and its alerts in a real Prometheus."""
