"""Fakes: stand-ins that keep the promises of the ports they replace."""
