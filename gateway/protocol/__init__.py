"""The client side's HTTP/1.1 over llhttp, with every bound that uvicorn's own does not have."""
