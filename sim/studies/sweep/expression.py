"""Conditions such as `tp*pp<=8` over named values.

The text is parsed, checked against a short list of what may occur, and walked; nothing of it
is ever executed as code.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from sim.errors import InputError, hint

MOST_LETTERS, MOST_BITS = 2000, 2048
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_CALLS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs, "round": round}


class Expression:
    """A condition or a number over names; dots belong to a name (`hbm.bandwidth_GBps > 3000`)."""

    def __init__(self, text: str, flag: str) -> None:
        self.text, self.where = text, f"{flag} {text!r}"
        if len(text) > MOST_LETTERS:
            raise InputError(
                f"{flag}: an expression of {len(text)} letters; {MOST_LETTERS} at most"
            )
        try:
            self.tree = ast.parse(text.strip(), mode="eval").body
            self.names = frozenset(self._check(self.tree))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise InputError(f"{self.where}: not an expression; write e.g. tp*pp <= 8") from None

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Its value. Raises InputError where the values do not allow it."""
        try:
            return self._walk(self.tree, values)
        except KeyError as error:
            name = str(error.args[0])
            raise InputError(f"{self.where}: no value {name!r} here{hint(name, values)}") from None
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"{self.where}: {error}") from None

    def check_types(self, sample: Mapping[str, Any]) -> None:
        """Raise InputError where values of the types of `sample` do not go together."""
        try:
            self._walk(self.tree, sample)
        except TypeError as error:
            raise InputError(f"{self.where}: {error}") from None
        except (KeyError, ValueError, ArithmeticError):
            return  # of these values, not of their types

    def _check(self, node: ast.AST) -> list[str]:
        """The names in it. Raises InputError for what may not occur."""
        inner: list[ast.AST] = []
        match node:
            case ast.Name() | ast.Attribute():
                return [self._dotted(node)]
            case ast.Constant(value=float(number)) if not math.isfinite(number):
                raise InputError(f"{self.where}: a number in it is not finite")
            case ast.Constant(value=bool() | int() | float() | str() | None):
                return []
            case ast.BinOp() if type(node.op) in _BINARY:
                inner = [node.left, node.right]
            case ast.UnaryOp() if type(node.op) in _UNARY:
                inner = [node.operand]
            case ast.BoolOp():
                inner = [*node.values]
            case ast.Compare() if all(type(op) in _COMPARE for op in node.ops):
                inner = [node.left, *node.comparators]
            case ast.Tuple() | ast.List():
                inner = [*node.elts]
            case ast.IfExp():
                inner = [node.test, node.body, node.orelse]
            case ast.Call(func=ast.Name(id=name)) if name in _CALLS and not node.keywords:
                inner = [*node.args]
            case _:
                raise InputError(
                    f"{self.where}: {ast.unparse(node)!r} may not stand in an expression; use "
                    f"names, numbers, + - * / // % **, comparisons, and, or, not, "
                    f"{', '.join(_CALLS)}"
                )
        return [name for one in inner for name in self._check(one)]

    def _dotted(self, node: ast.AST) -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        raise InputError(f"{self.where}: {ast.unparse(node)!r} is no name")

    def _walk(self, node: ast.AST, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() | ast.Attribute():
                return values[self._dotted(node)]
            case ast.BinOp():
                return _arithmetic(
                    node.op, self._walk(node.left, values), self._walk(node.right, values)
                )
            case ast.UnaryOp():
                return _UNARY[type(node.op)](self._walk(node.operand, values))
            case ast.BoolOp(op=ast.And()):
                return all(self._walk(one, values) for one in node.values)
            case ast.BoolOp():
                return any(self._walk(one, values) for one in node.values)
            case ast.Compare():
                left = self._walk(node.left, values)
                for op, comparator in zip(node.ops, node.comparators, strict=True):
                    right = self._walk(comparator, values)
                    if not _COMPARE[type(op)](left, right):
                        return False
                    left = right
                return True
            case ast.Tuple() | ast.List():
                return [self._walk(one, values) for one in node.elts]
            case ast.IfExp():
                chosen = node.body if self._walk(node.test, values) else node.orelse
                return self._walk(chosen, values)
            case ast.Call(func=ast.Name(id=name)):
                return _CALLS[name](*(self._walk(one, values) for one in node.args))
        raise AssertionError(node)  # _check has seen every node


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    for side in (left, right):
        if not isinstance(side, int | float):
            raise TypeError(f"{side!r} is no number")
        if isinstance(side, int) and side.bit_length() > MOST_BITS:
            raise ValueError("a number grows beyond all use")
    if isinstance(op, ast.Pow) and abs(right) > 64:
        raise ValueError(f"a power of {right} is beyond all use")
    return _BINARY[type(op)](left, right)
