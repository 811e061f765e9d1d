"""Profiling, measuring and the command line: the end of the dependency chain."""
