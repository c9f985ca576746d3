"""The vLLM engine: where it spends its time and what it runs out of first."""
