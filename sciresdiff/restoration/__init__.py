"""Restoring one plane: the prior, the refiner, and the physics that holds both to the data."""
