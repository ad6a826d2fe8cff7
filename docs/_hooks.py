"""Build steps of the site: the reference's pages, and pages of the repository outside of docs/."""

from __future__ import annotations

import ast
import pkgutil
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "palscope"
PAGES = [
    "benchmarks/README.md",
    "demo/lal/README.md",
    "demo/pal/README.md",
    "demo/plits/README.md",
    "palscope/assets/clips/ATTRIBUTION.md",
]


def on_files(files: Files, config: Any) -> Files:
    """Add the reference, and the pages outside of docs/ with the files that they link to."""
    for name, text in reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        linked = (Path(page).parent / link for link in re.findall(r"\]\(([^):#]+)\)", text))
        for path in dict.fromkeys([page, *(each.as_posix() for each in linked)]):
            if (ROOT / path).is_file() and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links from docs/ to these pages to their place in the site; list the reference's."""
    depth = page.file.src_uri.count("/")
    out, inside = "../" * (depth + 1), "../" * depth
    for target in PAGES:
        markdown = markdown.replace(f"]({out}{target}", f"]({inside}{target}")
    if page.file.src_uri == "reference/index.md":
        rows = "\n".join(
            f"| [`palscope.{name}`]({name.lstrip('_')}.md) | {summary(name)} |" for name in rooms()
        )
        markdown += f"\n| module | what is in it |\n|---|---|\n{rows}\n"
    return markdown


def reference() -> dict[str, str]:
    """A page for each room of the package: its docstring, then all of its modules."""
    pages: dict[str, str] = {}
    for name, is_room in rooms().items():
        modules = room_modules(name) if is_room else [f"palscope.{name}"]
        parts = [f"# `palscope.{name}`"]
        if is_room:
            parts.append(docstring(PACKAGE / name / "__init__.py"))
        if names := exported(name):
            parts.append(f"To be imported from `palscope.{name}`: {', '.join(names)}.")
        pages[name.lstrip("_")] = (
            "\n\n".join([*parts, *(f"::: {module}" for module in modules)]) + "\n"
        )
    return pages


def rooms() -> dict[str, bool]:
    """What stands in the package, and whether it is a package too."""
    found = pkgutil.iter_modules([str(PACKAGE)])
    return {name: is_room for _, name, is_room in found if not name.startswith("__")}


def room_modules(room: str) -> list[str]:
    """The room's modules: first those that it re-exports from, in its own order."""
    found: list[str] = []
    for _, name, is_package in pkgutil.iter_modules([str(PACKAGE / room)]):
        if is_package:
            found += room_modules(f"{room}/{name}")
        elif not name.startswith("__"):
            found.append(f"palscope.{room.replace('/', '.')}.{name}")
    front = re.findall(
        r"^from (\S+) import", (PACKAGE / room / "__init__.py").read_text("utf-8"), re.MULTILINE
    )
    return sorted(found, key=lambda name: front.index(name) if name in front else len(front))


def exported(room: str) -> list[str]:
    """Links to what the room's `__all__` names."""
    path = PACKAGE / room / "__init__.py"
    if not path.is_file():
        return []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [f"[`{n}`][palscope.{room}.{n}]" for n in ast.literal_eval(node.value)]
    return []


def summary(name: str) -> str:
    """A docstring's first sentence."""
    path = PACKAGE / name / "__init__.py"
    text = docstring(path if path.is_file() else PACKAGE / f"{name}.py")
    return text.split("\n\n")[0].replace("\n", " ")


def docstring(path: Path) -> str:
    """A module's docstring, or nothing."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
