"""What watches the gateway: Prometheus, Grafana, Jaeger, Loki, and their rules."""
