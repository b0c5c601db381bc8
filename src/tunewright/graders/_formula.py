"""A formula over named numbers, read from its syntax tree: numbers, names, + - * / ** %, comparisons, and a few functions."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tunewright.core.errors import ConfigurationError

LONGEST = 1000  # characters; a formula is a line
BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,  # in floats: what is too large overflows, and does not fill the memory
}
UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
COMPARED: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    **{ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt},
    **{ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne},
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{"min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil},
    **{"exp": math.exp, "sqrt": math.sqrt, "log": math.log},
}


class Formula:
    """A formula, checked once and computed often.

    Args:
        text: as it is written; `^` is a power, as in OpenAI's formulas.
        names: the numbers that it may speak of.

    Raises:
        ConfigurationError: it is no formula, is too long, or names what is not there.
    """

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text = text
        if len(text) > LONGEST:
            raise ConfigurationError(f"the formula has {len(text):,} characters; {LONGEST:,} are allowed", where="formula")
        try:
            self._body = ast.parse(text.replace("^", "**").strip(), mode="eval").body
            self._check(self._body, names)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"'{text[:80]}' is no formula ({error})", where="formula") from None

    def _check(self, node: ast.expr, names: Collection[str]) -> None:
        match node:
            case ast.Constant(value=bool() | int() | float()):
                return
            case ast.Name(id=name):
                if name not in names:
                    raise ConfigurationError(f"there is no grader '{name}'", where="formula", allowed=sorted(names), given=name)
                return
            case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
                inner = [left, right]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
                inner = [operand]
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in COMPARED for op in ops):
                inner = [left, *others]
            case ast.Call(func=ast.Name(id=name), args=inner, keywords=[]) if inner:
                if name not in FUNCTIONS:
                    problem = f"there is no function '{name}'"
                    raise ConfigurationError(problem, where="formula", allowed=sorted(FUNCTIONS), given=name)
            case _:
                raise ConfigurationError(f"'{ast.unparse(node)}' is nothing that a formula may hold", where="formula")
        for one in inner:
            self._check(one, names)

    def value(self, numbers: Mapping[str, float]) -> float:
        """What it gives for these numbers.

        Raises:
            ArithmeticError, ValueError, TypeError: it has no value there (a division by zero, the root of a negative number).
        """
        return float(self._value(self._body, numbers))

    def _value(self, node: Any, numbers: Mapping[str, float]) -> float:
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return float(value)
            case ast.Name(id=name):
                return numbers[name]
            case ast.BinOp(left=left, op=op, right=right):
                return BINARY[type(op)](self._value(left, numbers), self._value(right, numbers))
            case ast.UnaryOp(op=op, operand=operand):
                return UNARY[type(op)](self._value(operand, numbers))
            case ast.Compare(left=left, ops=ops, comparators=others):
                values = [self._value(one, numbers) for one in (left, *others)]
                pairs = zip(values, ops, values[1:], strict=False)
                return float(all(COMPARED[type(op)](one, other) for one, op, other in pairs))
        values = [self._value(one, numbers) for one in node.args]
        # One number is its own least and largest: Python's `min` wants two or a sequence.
        return FUNCTIONS[node.func.id](*values) if len(values) > 1 or node.func.id not in ("min", "max") else values[0]
