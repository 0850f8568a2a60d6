"""Diffusion as data: a path, a prediction, a solver and hooks, put together by a method file; no class per paper."""
