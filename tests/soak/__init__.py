"""The soak: a gateway under load and random faults for as long as is asked; see __main__."""
