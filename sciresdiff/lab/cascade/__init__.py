"""Cascades: the draws of one model are the coarse images of a second one (CDM, Ho et al. 2022)."""
