"""The notebooks run from top to bottom on the demo; their cells assert what their text says."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter

from tests import demo

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
IN_KERNEL = FOLDER / "03_nnsight_beside_the_bridge.ipynb"
"""nnsight reads the source of its blocks, which a kernel has."""
OTHERS = [path for path in NOTEBOOKS if path != IN_KERNEL]


def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_at_most_five_and_they_stay_small() -> None:
    assert 1 <= len(NOTEBOOKS) <= 5
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 2_000_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_of_a_run_without_errors(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code), "no outputs; run python notebooks/run.py"
    assert any("assert" in cell.source for cell in code)
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            shown = [output.get("text", ""), *output.get("data", {}).values()]
            assert not any(re.search(r"['\"/ ](home|root|work|Users)/", text) for text in shown)


@pytest.mark.slow
@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_its_cells_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: a kernel of its own takes each of them seconds more."""
    monkeypatch.chdir(FOLDER)
    names: dict[str, Any] = {}
    shown = DisplayFormatter()
    with demo.shared():
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                lines = cell.source.replace("%matplotlib inline", "")
                block = ast.parse(lines, str(path))
                last = block.body.pop() if isinstance(block.body[-1], ast.Expr) else None
                exec(compile(block, str(path), "exec"), names)
                if last is not None:
                    value = eval(compile(ast.Expression(last.value), str(path), "eval"), names)
                    assert value is None or shown.format(value)[0]


@pytest.mark.slow
def test_a_notebook_runs_in_a_kernel_and_is_left_as_it_is() -> None:
    before = IN_KERNEL.read_bytes()
    runner().execute(IN_KERNEL)
    assert IN_KERNEL.read_bytes() == before


def test_a_failing_cell_fails(tmp_path: Path) -> None:
    run = runner()
    cells = [nbformat.v4.new_code_cell("assert 1 == 2, 'not equal'")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    broken = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), broken)
    with pytest.raises(run.CellExecutionError, match="not equal"):
        run.execute(broken)
