"""Wire formats: bytes to calls and back, pure and without any I/O."""
