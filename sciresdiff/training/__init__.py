"""Training: the data, a loop that knows no physics, and the two things that are trained."""
