"""The gateway people put in front of their own vLLM."""

__version__ = "0.1.0"
