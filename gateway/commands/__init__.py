"""The command line beside `serve`: what operators do with keys and usage."""
