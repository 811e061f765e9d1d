"""`speckv inspect`."""

from __future__ import annotations

from speckv.benchmarks.cli.app import SourceArgument, app, open_source, say


@app.command()
def inspect(source: SourceArgument) -> None:
    """Check a controller and print what it says about itself."""
    import msgspec

    artefact = open_source(source)
    say(f"{artefact.source}\nsha256 {artefact.sha256}")
    say(msgspec.json.format(msgspec.json.encode(artefact.metadata)).decode())
