"""Every single-line mutation of a source file: what one slip of a finger could have made of it.

Left alone: text (docstrings, f-strings, what a `raise` says), annotations, decorators, imports.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

OPERATORS: dict[type, tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "//"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}

_PAIRS = "min max|any all|amin amax|argmin argmax|minimum maximum|floor ceil|sum mean|tril triu"
SWAPS = {a: b for pair in _PAIRS.split("|") for a, b in (pair.split(), pair.split()[::-1])}

Edit = tuple[str, int, int, int, str]
"""Name of the operator, line from 1, first and last byte on it, and what stands there instead."""


@dataclass(frozen=True)
class Mutation:
    """A line of a file, and what becomes of it."""

    path: str
    line: int
    operator: str
    before: str
    after: str


def mutations(path: str, source: str) -> list[Mutation]:
    """All mutations of a file, in the order of its lines; each of them compiles."""
    lines = source.splitlines()
    found: set[Mutation] = set()
    for operator, number, start, end, text in _edits(ast.parse(source), source.encode()):
        line = lines[number - 1].encode()
        after = (line[:start] + text.encode() + line[end:]).decode().rstrip()
        if after == lines[number - 1]:
            continue
        try:
            compile("\n".join([*lines[: number - 1], after, *lines[number:]]), path, "exec")
        except SyntaxError:
            continue
        found.add(Mutation(path, number, operator, lines[number - 1], after))
    return sorted(found, key=lambda m: (m.line, m.operator, m.after))


def _edits(tree: ast.AST, source: bytes) -> Iterator[Edit]:
    lines = source.splitlines()

    def text(node: Any) -> str:
        return lines[node.lineno - 1][node.col_offset : node.end_col_offset].decode()

    def whole(name: str, node: Any, new: str) -> Iterator[Edit]:
        if node.lineno == node.end_lineno:
            yield name, node.lineno, node.col_offset, node.end_col_offset, new

    def between(left: Any, operator: ast.AST, right: Any) -> Iterator[Edit]:
        old, new = OPERATORS.get(type(operator), ("", ""))
        number = left.end_lineno
        if not old:
            return
        # The operator stands on the line on which its left side ends, or on which its right begins.
        for number in sorted({left.end_lineno, right.lineno}):
            start = left.end_col_offset if number == left.end_lineno else 0
            line = lines[number - 1]
            end = right.col_offset if number == right.lineno else len(line)
            pattern = rf"\b{old}\b" if old[0].isalpha() else re.escape(old)
            if hit := re.search(pattern.encode(), line[start:end].split(b"#")[0]):
                yield "operator", number, start + hit.start(), start + hit.end(), new
                return

    for node in _code(tree):
        match node:
            case ast.Compare(left=left, ops=operators, comparators=others):
                sides = [left, *others]
                for i, operator in enumerate(operators):
                    yield from between(sides[i], operator, sides[i + 1])
            case ast.BinOp(left=left, op=operator, right=right):
                yield from between(left, operator, right)
            case ast.BoolOp(op=operator, values=values):
                for left, right in pairwise(values):
                    yield from between(left, operator, right)
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
                yield from whole("unary", node, text(operand))
            case ast.Constant(value=bool(value)):
                yield from whole("constant", node, str(not value))
            case ast.Constant(value=int(value)):
                yield from whole("constant", node, str(value + 1))
            case ast.Constant(value=float(value)):
                yield from whole("constant", node, str(2 * value if value else 1.0))
            case ast.Slice(lower=lower, upper=upper):
                for bound in (lower, upper):
                    if bound is not None:
                        yield from whole("slice", bound, "")
            case ast.Call(func=function, args=arguments, keywords=keywords):
                if (name := text(function).rpartition(".")[2]) in SWAPS:
                    end = function.end_col_offset or 0
                    yield "swap", function.end_lineno or 0, end - len(name), end, SWAPS[name]
                for keyword in keywords:
                    if keyword.arg and keyword.lineno == keyword.end_lineno:
                        line = lines[keyword.lineno - 1]
                        start, end = keyword.col_offset, keyword.end_col_offset or 0
                        if behind := re.match(rb"\s*,\s*", line[end:]):
                            end += behind.end()
                        elif before := re.search(rb",\s*$", line[:start]):
                            start = before.start()
                        yield "argument dropped", keyword.lineno, start, end, ""
            case ast.Return(value=ast.Call(func=function, args=arguments) as call):
                receiver = [function.value] if isinstance(function, ast.Attribute) else []
                for first in [*arguments, *receiver][:1]:
                    yield from whole("argument returned", call, text(first))
            case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Continue() | ast.Break():
                yield from whole("statement dropped", node, "pass")
            case ast.Assign(targets=[target], value=value):
                names = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
                if not isinstance(target, ast.Name) or target.id in names:
                    yield from whole("statement dropped", node, "pass")
            case _:
                pass
        test = getattr(node, "test", None)
        tests = [test] if test is not None and not isinstance(node, ast.Assert) else []
        for condition in [*tests, *getattr(node, "ifs", [])]:
            yield from whole("condition negated", condition, f"not ({text(condition)})")


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run and are no text."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _code(child)
