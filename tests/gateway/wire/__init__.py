"""Tests of the wire formats: bytes in, calls, counts and bytes out."""
