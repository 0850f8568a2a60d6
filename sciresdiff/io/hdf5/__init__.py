"""HDF5: training sets and single images."""
