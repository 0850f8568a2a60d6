"""FITS: in by windows, out in place, every card of the input kept."""
