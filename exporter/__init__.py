"""GPU metrics for Prometheus: a stranger to the gateway, useful beside any vLLM."""
