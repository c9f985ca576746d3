"""Bytes to an upstream and back; what vendors raise becomes ours here."""
