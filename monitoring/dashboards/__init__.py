"""Grafana's dashboards as code: typed parts in, the committed JSON of `monitoring/grafana` out."""
