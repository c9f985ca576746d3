"""Tools beside the gateway: launchers, watchdog, load test, simulator."""
