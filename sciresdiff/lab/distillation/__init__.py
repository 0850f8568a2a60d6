"""Distillation: a student that draws in one step or a few, taught by a trained refiner."""
