"""Load on an OpenAI-compatible server, measured from where its users sit: `make loadtest`."""
