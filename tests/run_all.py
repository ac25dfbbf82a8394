"""What ``make test`` runs: the batch, every notebook under nbval, then unit tests; all on fresh runs, in ``smoke``."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from wsolkit.system.processes import cores

ROOT = Path(__file__).resolve().parent.parent

#: Tests of one file, and the cells of one notebook, run in their order; files and notebooks beside each other.
BY_FILE = ["--dist", "loadfile", "--numprocesses"]

STAGES = {
    "batch": ["-m", "wsolkit", "reproduce", "--profile", "smoke"],
    "notebooks": [
        *["-m", "pytest", "notebooks", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120"],
        *["-p", "no:cacheprovider", *BY_FILE, str(cores())],
    ],
    # One more than there are cores: a tenth of the time some test waits for processes of its own.
    "unit tests": ["-m", "pytest", "tests", *BY_FILE, str(cores() + 1)],
}


def main() -> int:
    """Run the stages one after the other; the first that fails decides the exit code."""
    with tempfile.TemporaryDirectory() as fresh:
        # Runs of an earlier version of the code must not stand in for those of this one.
        folders = {f"WSOLKIT_{name}": f"{fresh}/{name.lower()}" for name in ("RUNS", "CACHE", "OUT")}
        environment = os.environ | folders | {"WSOLKIT_PROFILE": "smoke"}
        for title, command in STAGES.items():
            print(f"--- {title}", flush=True)
            code = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=False).returncode
            if code:
                print(f"--- {title} failed", flush=True)
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
