"""HTTP in, HTTP out: the only room that speaks ASGI."""
