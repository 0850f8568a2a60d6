"""Results as data, tables and pictures."""
