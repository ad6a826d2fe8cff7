"""A shape that an annotation promises and nobody keeps is an error in tests."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor

import palscope
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from tests import shapes

if TYPE_CHECKING:
    from nowhere import Unknown  # pyright: ignore[reportMissingImports]

TWO_BY_THREE, THREE = torch.zeros(2, 3), torch.zeros(3)


def product(
    rows: Float[Tensor, "rows columns"], by: Float[Tensor, "columns"]
) -> Float[Tensor, "columns"]:
    """Lies: what it returns has a number for each row."""
    return rows @ by


def halves(
    given: list[Float[Tensor, "n"]] | None, kind: Unknown = None
) -> dict[str, tuple[Int[Tensor, "n"], str]]:
    return {"a": (torch.zeros(3).long(), "x"), "b": (torch.zeros(3 if kind else 2).long(), "y")}


def mostly(
    rows: list[Float[Tensor, "n"]] | Float[Tensor, "n"], lies: bool
) -> tuple[Int[Tensor, "n"] | None, str]:
    return torch.zeros(len(rows[0]) + lies).long(), "x"


def refuses(samples: Float[Tensor, "samples"]) -> None:
    if samples.ndim == 2:
        raise PalscopeError("no sound of two channels")
    samples.expand(2, 2)


@dataclass(frozen=True)
class Sized:
    states: Float[Tensor, "clips width"]
    lengths: Int[Tensor, "clips"]


class Pair(NamedTuple):
    name: str
    states: Float[Tensor, "clips width"]


def calls(function: Callable[..., Any]) -> Callable[..., Any]:
    return shapes.checked(function)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: calls(product)(TWO_BY_THREE, THREE), r"what .*product returns .*float32\[2\]"),
        (lambda: calls(product)(TWO_BY_THREE, torch.zeros(2)), r"product\(by\) .*float32\[2\]"),
        (lambda: calls(product)(TWO_BY_THREE.long(), THREE.long()), r"\(rows\).*int64\[2, 3\]"),
        (lambda: calls(halves)([THREE, TWO_BY_THREE]), r"\(given\).*list of float32\[3\], float"),
        (
            lambda: calls(halves)(None),
            r"returns .*dict of tuple of int64\[3\], str, tuple of int64",
        ),
        (lambda: shapes.checked(Sized)(TWO_BY_THREE, THREE.long()), r"Sized.*\(lengths\)"),
        (lambda: shapes.checked(Pair)("a", THREE), r"Pair.*\(states\)"),
        (lambda: calls(refuses)(torch.zeros(2, 2, 2)), r"\(samples\)"),
    ],
)
def test_a_lie_is_told(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(TypeCheckError, match=says):
        call()


def test_what_is_so_passes() -> None:
    square = torch.zeros(3, 3)
    assert calls(product)(square, THREE).shape == (3,)
    assert len(calls(halves)([THREE], kind="any")) == 2
    # Names have their numbers anew in each call.
    assert calls(product)(torch.zeros(2, 2), torch.zeros(2)).shape == (2,)
    assert shapes.checked(Sized)(TWO_BY_THREE, torch.zeros(2).long()).states is TWO_BY_THREE
    assert shapes.checked(Pair)("a", TWO_BY_THREE)._replace(name="b").name == "b"


def test_what_was_right_before_is_held_again_when_it_differs() -> None:
    """In a shape, a type, a member of a list, a dimension of what is returned, or a kind."""
    call = calls(mostly)
    for _ in range(2):
        call([THREE, THREE], lies=False)
    for given, lies in (
        ([THREE, TWO_BY_THREE], False),
        ([THREE, torch.zeros(2)], False),
        ([THREE, THREE.long()], False),
        ([THREE, "three"], False),
        ([THREE, THREE], True),
    ):
        for _ in range(2):
            with pytest.raises(TypeCheckError):
                call(given, lies=lies)
    call([THREE, THREE], lies=False)
    call(rows=[torch.zeros(4)], lies=False)


def test_what_palscope_refuses_may_have_any_shape() -> None:
    with pytest.raises(PalscopeError, match="two channels"):
        calls(refuses)(TWO_BY_THREE)
    with shapes.unchecked():
        assert calls(product)(TWO_BY_THREE, THREE).shape == (2,)


def test_a_function_without_shapes_is_itself() -> None:
    def plain(name: str, kind: Unknown) -> list[str]:
        return [name]

    assert shapes.checked(plain) is plain


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    def of(text: str) -> Any:
        (tmp_path / "lying.py").write_text(text)
        shapes.check_shapes_of("lying")
        return importlib.import_module("lying")

    monkeypatch.syspath_prepend(tmp_path)
    before = sys.meta_path.copy()
    yield of
    sys.meta_path[:] = before
    sys.modules.pop("lying", None)


def test_whatever_is_imported_is_held(imported: Callable[[str], Any], tmp_path: Path) -> None:
    """Functions within functions, methods, properties and cached ones too; no file is left."""
    module = imported(inspect.cleandoc('''
        """A module."""
        from __future__ import annotations
        from functools import cache
        from jaxtyping import Float
        from torch import Tensor, zeros

        def outer():
            def inner(x: Float[Tensor, "n n"]) -> None: ...
            inner(zeros(2, 3))

        class Some:
            def method(self, x: Float[Tensor, "n n"]) -> None: ...
            @staticmethod
            def alone(x: Float[Tensor, "n n"]) -> None: ...
            @property
            def shown(self) -> Float[Tensor, "n n"]:
                return zeros(2, 3)

        @cache
        def kept() -> Float[Tensor, "n n"]:
            return zeros(2, 3)
        '''))  # fmt: skip
    some, wrong = module.Some(), TWO_BY_THREE
    for call in (
        module.outer,
        lambda: some.method(wrong),
        lambda: module.Some.alone(wrong),
        lambda: some.shown,
        module.kept,
    ):
        with pytest.raises(TypeCheckError):
            call()
    assert not (tmp_path / "__pycache__").exists()


def test_palscope_is_held() -> None:
    with pytest.raises(TypeCheckError, match=r"Waveform.*\(samples\)"):
        Waveform(torch.zeros(2, 8).numpy(), 16_000, "two channels")


def test_no_shape_of_palscope_is_written_so_that_it_cannot_be_read() -> None:
    for module in pkgutil.walk_packages(palscope.__path__, "palscope."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    array = {"Tensor", "ndarray", "Float", "Int", "Bool"}
    lost = [
        (module, text)
        for module, text in shapes.unread
        if module.startswith("palscope")
        and array & {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(ast.parse(text))}
    ]
    assert lost == []
