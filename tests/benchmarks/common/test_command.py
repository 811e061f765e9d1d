"""The one way in which a command ends, where it is ended from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

COMMAND = """
import sys, time
from pathlib import Path
from speckv.benchmarks.common.command import make_app, run

app = make_app()

@app.command()
def hold() -> None:
    held = Path(sys.argv[1])
    held.touch()
    try:
        print("holding", flush=True)
        time.sleep(60)
    finally:
        held.unlink()

run(app, arguments=[])
"""


def test_what_a_terminated_command_holds_is_let_go(tmp_path: Path) -> None:
    """As with Ctrl-C: a server that a benchmark has started must not stay behind."""
    held = tmp_path / "held"
    with subprocess.Popen([sys.executable, "-c", COMMAND, held], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "holding\n" and held.exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert not held.exists()
