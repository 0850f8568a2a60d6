"""Degradations: chains of blur, resampling, noise and coding, drawn from recipes."""
