"""Runs notebooks from top to bottom and stores what they show; `make notebooks` runs all.

python notebooks/execute.py notebooks/01_presets.ipynb
python notebooks/execute.py --small notebooks/01_presets.ipynb    # only tries it, in small sizes; stores nothing
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from zoo.files import replacing

ROOT = Path(__file__).resolve().parent.parent
# Of one cell, in seconds.
TIMEOUT = 900
# What the C++ of TensorFlow says on standard error while it is imported, whatever TF_CPP_MIN_LOG_LEVEL is.
LOGS = re.compile(r"^(?:WARNING: All log messages before absl|[IW]\d{4} \d\d:).*\n?", re.MULTILINE)


def execute(path: Path, small: bool) -> None:
    """Runs a notebook in an empty folder, with this checkout's zoo; its file changes only if all went well.

    Args:
        path: The notebook.
        small: Sets ZOO_NOTEBOOK_SMALL, by which notebooks choose their sizes, and leaves the file as it is.

    Raises:
        CellExecutionError: If a cell fails; it shows the cell and the error.
    """
    notebook = nbformat.read(path, as_version=4)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore::UserWarning",  # they name files of this machine
        "ZOO_NOTEBOOK_SMALL": "1" if small else "0",
    }
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=environment)
    if not small:
        drop_logs(notebook)
        with replacing(path) as temporary:
            nbformat.write(notebook, temporary)


def drop_logs(notebook: nbformat.NotebookNode) -> None:
    """Takes what the C++ of TensorFlow logs out of what the cells show."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                output.text = LOGS.sub("", output.text)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text") != ""]


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs notebooks from top to bottom and stores what they show.")
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--small", action="store_true", help="runs in small sizes and stores nothing")
    options = parser.parse_args()
    for path in options.notebooks:
        print(path, flush=True)
        try:
            execute(path, options.small)
        except CellExecutionError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
