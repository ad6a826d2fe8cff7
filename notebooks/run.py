"""Execute the notebooks and store their outputs: run it when palscope or the demo has changed.

    python notebooks/run.py            all of them, in place
    python notebooks/run.py 02 --check one of them, stored nowhere

What differs from run to run or between machines (times, progress, numbers of executions, the
repository's place) is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parent
SECONDS_A_CELL = 600


def execute(path: Path) -> Any:
    """The notebook with fresh outputs. Raises `CellExecutionError` when a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
                for kind, text in output.get("data", {}).items():
                    output.data[kind] = text.replace(f"{FOLDER.parent}/", "")
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="how their file names start; all by default")
    parser.add_argument("--check", action="store_true", help="execute, but store nothing")
    arguments = parser.parse_args()
    chosen = [
        path
        for path in sorted(FOLDER.glob("*.ipynb"))
        if not arguments.names or path.name.startswith(tuple(arguments.names))
    ]
    if not chosen:
        print(f"error: no notebook's name starts with {arguments.names}", file=sys.stderr)
        return 2
    for path in chosen:
        print(path.name, flush=True)
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            print(f"error: {path.name}: {error}", file=sys.stderr)
            return 1
        if not arguments.check:
            nbformat.write(notebook, path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
