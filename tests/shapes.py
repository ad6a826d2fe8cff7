"""The shapes that palscope's annotations promise, held at run time while tests run.

`Float[Tensor, "clips tokens width"]` is held against what is given and returned, and against the
fields of dataclasses and named tuples; the name of a dimension means one number within one call.
Shapes alone: pyright checks every other type, and tests give doubles that no annotation names. An
argument that palscope refuses by an error of its own may have any shape.

What was right once is not looked at again for the same shapes and types. Jaxtyping's own import
hook looks each time, and wraps every function, with a shape or without: 1.7 times the processor's
time where this takes 1.05. It also takes an annotation that it cannot read for `Any`, and while it
loads a module it passes over the compiled files of all that the module imports.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, ForwardRef, get_args, get_origin

import jaxtyping
import numpy as np
import typeguard
from torch import Tensor

_checks = ContextVar("checks", default=True)

_ABSENT = object()

# Functions without shapes: one within another is defined again in each call.
_plain = set[tuple[str, CodeType]]()

# Annotations with names that only type checkers import, each with its module.
unread: list[tuple[str, str]] = []


def check_shapes_of(package: str) -> None:
    """Whatever is imported of `package` from now on checks its shapes."""
    sys.meta_path.insert(0, _Finder(package))


@contextmanager
def unchecked() -> Iterator[None]:
    """For what a test gives wrongly on purpose, and palscope takes."""
    token = _checks.set(False)
    try:
        yield
    finally:
        _checks.reset(token)


def checked(definition: Any) -> Any:
    """A function, dataclass or named tuple that holds its shapes; the same where it has none."""
    if not inspect.isclass(definition):
        code = definition.__code__
        if (code.co_filename, code) in _plain:
            return definition
        held = _holding(definition, _kinds(definition), definition)
        if held is definition:
            _plain.add((code.co_filename, code))
        return held
    own = vars(definition)
    made_by = "__init__" if "__dataclass_fields__" in own else "__new__" if "_fields" in own else ""
    if made_by in own:
        kinds: dict[str, Any] = {}
        for each in reversed(definition.__mro__):
            kinds |= _kinds(each)
        setattr(definition, made_by, _holding(getattr(definition, made_by), kinds, definition))
    return definition


def _holding(function: Callable[..., Any], kinds: dict[str, Any], named: Any) -> Callable[..., Any]:
    shapes = {name: kind for name, kind in kinds.items() if _has_shape(kind)}
    if not shapes:
        return function
    where = f"{named.__module__}.{named.__qualname__}"
    places = [(name, place) for name, place in _places(function).items() if name in shapes]
    looked_at = [(f"{where}({name})", shapes[name]) for name, _ in places]
    returns = "return" in shapes
    if returns:
        looked_at.append((f"what {where} returns", shapes["return"]))
    right = set[Any]()

    def faults(values: list[Any]) -> list[jaxtyping.TypeCheckError]:
        known = _known_by(values)
        if known in right:
            return []
        each = zip(looked_at, values)  # noqa: B905 what is returned comes later
        with jaxtyping.jaxtyped("context"):  # where the names of dimensions have their numbers
            found = [fault for (what, kind), value in each if (fault := _fault(what, value, kind))]
        if known is not None and not found:
            right.add(known)
        return found

    @wraps(function)
    def held(*args: Any, **kwargs: Any) -> Any:
        if not _checks.get():
            return function(*args, **kwargs)
        given = [
            args[place] if place < len(args) else kwargs.get(name, _ABSENT)
            for name, place in places
        ]
        wrong = faults(given)
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            if wrong and not _is_refusal(error):
                raise wrong[0] from error
            raise
        if returns and not wrong:
            wrong = faults([*given, result])
        if wrong:
            raise wrong[0]
        return result

    return held


def _places(function: Callable[..., Any]) -> dict[str, int]:
    """Where each parameter stands among what is given by place; beyond all, where none can be."""
    parameters = inspect.signature(function).parameters.values()
    return {
        each.name: place if each.kind <= each.POSITIONAL_OR_KEYWORD else sys.maxsize
        for place, each in enumerate(parameters)
    }


def _known_by(values: list[Any]) -> tuple[Any, ...] | None:
    """All that a check sees of them, which need not see it twice; None where that is unknown."""
    try:
        known = tuple(map(_seen, values))
        hash(known)
    except TypeError:
        return None
    return known


def _seen(value: Any) -> Any:
    kind = type(value)
    if kind is Tensor or issubclass(kind, (Tensor, np.ndarray)):
        return kind, value.dtype, value.shape
    if issubclass(kind, (list, tuple)):
        return kind, *map(_seen, value)
    if issubclass(kind, dict):
        return kind, *((key, _seen(each)) for key, each in value.items())
    if issubclass(kind, str):
        return value
    if issubclass(kind, Iterable):
        raise TypeError(f"{kind} may hold anything")
    return kind


def _fault(what: str, value: Any, kind: Any) -> jaxtyping.TypeCheckError | None:
    if value is _ABSENT or (isinstance(kind, type) and isinstance(value, kind)):
        return None
    try:
        typeguard.check_type(
            value,
            kind,
            forward_ref_policy=typeguard.ForwardRefPolicy.IGNORE,
            collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS,
        )
    except typeguard.TypeCheckError as error:
        return jaxtyping.TypeCheckError(
            f"{what} is annotated {kind}, with the numbers that its names have in this call, and "
            f"is {_shape(value)}: mend the annotation, or what is given. {error}"
        )
    return None


def _is_refusal(error: Exception) -> bool:
    """Whether palscope itself said what is wrong with what it was given."""
    from palscope.errors import PalscopeError

    return isinstance(error, PalscopeError)


def _shape(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}".removeprefix("torch.")
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {', '.join(map(_shape, value[:4]))}"
    if isinstance(value, dict):
        return f"{type(value).__name__} of {', '.join(map(_shape, [*value.values()][:4]))}"
    return type(value).__name__


def _has_shape(kind: Any) -> bool:
    if isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractArray):
        return True
    # What a function takes is checked when it is called.
    return get_origin(kind) is not Callable and any(map(_has_shape, get_args(kind)))


def _kinds(definition: Any) -> dict[str, Any]:
    """The annotations of a function, or of a class without its bases."""
    written = inspect.get_annotations(definition)
    return {name: _read(text, definition.__module__) for name, text in written.items()}


def _read(annotation: Any, module: str) -> Any:
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, vars(sys.modules[module]))
    except NameError:
        unread.append((module, annotation))
        return Any


class _Finder(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package and not fullname.startswith(f"{self.package}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Compiles each time: compiled files are kept for code that checks nothing."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = _Decorating().visit(ast.parse(self.get_data(path)))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


class _Decorating(ast.NodeTransformer):
    """`checked` innermost around each function, where annotations still are, and around classes."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list.append(_decorator(node))
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.decorator_list.insert(0, _decorator(node))
        self.generic_visit(node)
        return node


def _decorator(node: ast.stmt) -> ast.expr:
    found = ast.parse(f"__import__('sys').modules[{__name__!r}].checked", mode="eval")
    return ast.copy_location(found.body, node)
