"""Diffusion of a code of the image instead of the image: an autoencoder's code, or one vector for the frame."""
