"""The gateway overview: is the service well, and if not, where does it hurt?"""
