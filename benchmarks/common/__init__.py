"""What several of the benchmarks share: progress, tables, journals, what a result carries."""
