"""TIFF: OME, ImageJ and plain files, in by strips and tiles, out in the input's own style."""
