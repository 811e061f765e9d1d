"""EAGLE-3 heads, made on a CPU in an hour or two from what a target says: good enough to test with, no better."""
