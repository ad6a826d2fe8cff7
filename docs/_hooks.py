"""Build steps of the site: the reference, the notebooks, and other pages from outside of docs/."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "palscope"
PAGES = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "demo/lal/README.md",
    "demo/pal/README.md",
    "demo/plits/README.md",
    "palscope/assets/clips/ATTRIBUTION.md",
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WHOLE = {"training": "palscope.training._recipe"}
"""Modules that a room's page shows whole: all the keys of a recipe."""


def on_files(files: Files, config: Any) -> Files:
    """Add the reference, the notebooks, and pages outside of docs/ with what they link to."""
    for name in rooms():
        files.append(File.generated(config, f"reference/{name}.md", content=reference(name)))
    for path in NOTEBOOKS:
        for name, content in notebook(path).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^):#]+)\)", text)
        linked = (Path(page).parent / link for link in links if not link.startswith("docs/"))
        for path in dict.fromkeys([page, *(each.as_posix() for each in linked)]):
            if (ROOT / path).is_file() and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to pages outside of docs/ to their place in the site; list the reference's."""
    depth = page.file.src_uri.count("/")
    out, inside = "../" * (depth + 1), "../" * depth
    for target in PAGES:
        markdown = markdown.replace(f"]({out}{target}", f"]({inside}{target}")
    for path in NOTEBOOKS:
        markdown = markdown.replace(
            f"]({out}notebooks/{path.name})", f"]({inside}notebooks/{path.stem}.md)"
        )
    if page.file.src_uri in PAGES:
        markdown = markdown.replace("](docs/", "](")
    if page.file.src_uri == "reference/index.md":
        rows = "\n".join(
            f"| [`{module}`]({name}.md) | {summary(name)} |" for name, module in rooms().items()
        )
        markdown += f"\n| from | what is in it |\n|---|---|\n{rows}\n"
    return markdown


def notebook(path: Path) -> dict[str, str | bytes]:
    """A notebook with its stored outputs, as a page, and the page's images."""
    body, resources = MarkdownExporter().from_filename(str(path))
    linked = re.sub(r"\((\d\d_\w+)\.ipynb\)", r"(\1.md)", body)
    images = {f"{path.stem}/{name}": data for name, data in resources["outputs"].items()}
    for name in resources["outputs"]:
        linked = linked.replace(f"]({name})", f"]({path.stem}/{name})")
    return {f"{path.stem}.md": linked, **images}


def rooms() -> dict[str, str]:
    """The module behind each page of the reference: palscope itself, and what is public in it."""
    inside = sorted(
        path.parent.name if path.stem == "__init__" else path.stem
        for path in (*PACKAGE.glob("[a-z]*/__init__.py"), *PACKAGE.glob("[a-z]*.py"))
    )
    return {"palscope": "palscope"} | {name: f"palscope.{name}" for name in inside}


def reference(name: str) -> str:
    """A page: the module's docstring, then every name that it offers."""
    module = rooms()[name]
    parts = [f"# `{module}`", docstring(file_of(name))]
    parts += [f"::: {module}.{each}" for each in exported(name)]
    if name in WHOLE:
        parts.append(f"::: {WHOLE[name]}")
    return "\n\n".join(parts) + "\n"


def exported(name: str) -> list[str]:
    """What the module's `__all__` names."""
    for node in ast.parse(file_of(name).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def summary(name: str) -> str:
    """A docstring's first sentence."""
    return docstring(file_of(name)).split("\n\n")[0].replace("\n", " ")


def file_of(name: str) -> Path:
    """Where a page's module stands."""
    if name == "palscope":
        return PACKAGE / "__init__.py"
    package = PACKAGE / name / "__init__.py"
    return package if package.is_file() else PACKAGE / f"{name}.py"


def docstring(path: Path) -> str:
    """A module's docstring, or nothing."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
