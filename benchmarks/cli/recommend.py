"""`speckv recommend`."""

from __future__ import annotations

from speckv.benchmarks.cli.app import ResultArgument, app, say


@app.command()
def recommend(result: ResultArgument) -> None:
    """Print which settings to use where a result was measured, or that speculation does not pay there, and why."""
    from speckv.benchmarks.report.reading import read
    from speckv.benchmarks.report.recommend import recommendations

    say("\n\n".join(recommendations(read(result))))
