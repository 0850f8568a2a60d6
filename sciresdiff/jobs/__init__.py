"""Whole jobs over files: plan, run, record."""
