"""What `make monitoring` starts, with Docker and without."""
