"""OME-Zarr. Needs the extra ``zarr``."""
