"""Tests of the tools under scripts/."""
