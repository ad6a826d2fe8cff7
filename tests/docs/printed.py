"""What a sample prints, held against what the page says that it prints.

A comment behind a `print(…)` is what it prints; a block of text under a sample is what its other
prints print. `…` stands for anything. Numbers are compared to the digits that are written.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from dataclasses import dataclass, field
from typing import Any

from sybil import Example

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
TEXT_BELOW = re.compile(r"\s*```text\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Said:
    """What the page says of a sample.

    Attributes:
        comments: of each `print`, by its line in the page; None where it has none.
        below: the block of text under the sample.
    """

    comments: dict[int, str | None]
    below: str | None


def said(example: Example) -> Said:
    """What the page says that a sample prints."""
    first = example.line + example.parsed.line_offset
    source = str(example.parsed)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    behind = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT
    }
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    printed = [call for call in calls if ast.unparse(call.func) == "print"]
    below = TEXT_BELOW.match(example.document.text[example.region.end :])
    return Said(
        {first + call.lineno: behind.get(call.end_lineno or 0) for call in printed},
        below[1] if below else None,
    )


@dataclass
class Printer:
    """Stands in for `print`: keeps what is printed, with the line of the page that prints it."""

    lines: list[tuple[int, str]] = field(default_factory=list)

    def __call__(self, *values: Any, sep: str = " ") -> None:
        self.lines.append((sys._getframe(1).f_lineno, sep.join(map(str, values))))


def check(example: Example) -> None:
    """Run a sample. Raises `AssertionError` where it prints something else than the page says."""
    wanted, printer = said(example), Printer()
    example.document.namespace["print"] = printer
    example.evaluate()
    for line, comment in wanted.comments.items():
        found = "\n".join(text for at, text in printer.lines if at == line)
        where = f"{example.path}:{line}"
        assert comment is None or agree(comment, found), f"{where} prints {found!r}"
    others = [text for line, text in printer.lines if wanted.comments[line] is None]
    if others and wanted.below is not None:
        found = "\n".join(others)
        assert agree(wanted.below, found), f"{example.path}:{example.line} prints\n{found}"


def agree(written: str, printed: str) -> bool:
    """Whether a text is what was printed, in all but its white space and further digits."""
    written, printed = (" ".join(text.replace("−", "-").split()) for text in (written, printed))
    pattern = ""
    for piece in re.split(f"({NUMBER.pattern}|…)", written):
        if piece == "…":
            pattern += ".*?"
        else:
            pattern += f"({NUMBER.pattern})" if NUMBER.fullmatch(piece) else re.escape(piece)
    found = re.fullmatch(pattern, printed)
    numbers = NUMBER.findall(written)
    return found is not None and all(map(_close, numbers, found.groups()))


def _close(written: str, printed: str) -> bool:
    """To one in the last digit that is written; other processors round otherwise."""
    if not re.search(r"[.e]", written + printed):
        return int(written) == int(printed)
    digits, _, exponent = written.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    return abs(float(written) - float(printed)) <= 1.001 * unit
