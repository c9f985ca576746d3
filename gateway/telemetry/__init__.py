"""What operators see: one log line, one set of metrics and one span per request."""
