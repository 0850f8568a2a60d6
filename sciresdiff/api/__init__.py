"""The front door in Python: arrays or files in, results out; no file is needed, and none is written unasked.

`sciresdiff.restore`, `sciresdiff.degrade` and `sciresdiff.evaluate` are defined here, each beside what it returns.
"""
