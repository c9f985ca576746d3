"""The client side's HTTP/1.1: uvicorn's, with what neither it nor llhttp bounds."""
