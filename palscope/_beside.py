"""What stands beside the package in a clone, and inside it in a wheel: analyses and the page."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def in_clone() -> bool:
    """Whether the package is used from a clone, and not from a wheel."""
    return (PACKAGE.parent / "pyproject.toml").is_file()


def folder(name: str) -> Path:
    """`analyses` or `dashboards`."""
    return (PACKAGE.parent if in_clone() else PACKAGE) / name


def words_for(analysis: str) -> list[str]:
    """The command of an analysis, as a person types it here; of one's own, by name or file."""
    if analysis not in analysis_files():
        return ["python", f"{analysis.removesuffix('.py')}.py"]
    return ["python", f"analyses/{analysis}.py"] if in_clone() else ["palscope", analysis]


def analysis_files() -> dict[str, Path]:
    """The file of every analysis, by its name."""
    files = sorted(folder("analyses").glob("*.py"))
    return {file.stem: file for file in files if not file.stem.startswith("_")}
