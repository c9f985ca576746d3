"""GPU metrics for Prometheus: a stranger to the gateway, useful beside any vLLM."""

__version__ = "0.1.0"
