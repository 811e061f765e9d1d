"""What is collected from a pair of models: records of steps, traces, and timed generation."""
