"""Functions to descend: some that show what descent can and cannot do, and expressions that a user types."""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ddpgd.config.parsing import did_you_mean
from ddpgd.config.units import enumerated
from ddpgd.errors import InputError, shown
from ddpgd.lab.scalar import FUNCTIONS as OF_ONE_NUMBER
from ddpgd.lab.scalar import MLP, Value

Rows = tuple[tuple[float, ...], ...]
Point = tuple[float, ...]


@dataclass(frozen=True)
class Function:
    """A function of params: the mean over samples of a loss.

    Attributes:
        name: What a user types.
        text: What it is, in words or as a formula.
        params: The params by name, where a descent begins.
        loss: sample -> its loss, from the params as they are.
        lr: A learning rate that suits it.
        num_samples: Number of samples; 1: a plain function, which has no data.
        answer: The params of the least mean loss in closed form; empty: there is none.
        box: Where a function of one or two params is drawn: lowest and highest value of each.
    """

    name: str
    text: str
    params: list[Value]
    loss: Callable[[int], Value]
    lr: float = 0.1
    num_samples: int = 1
    answer: Point = ()
    box: tuple[tuple[float, float], ...] = ()


_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_LONGEST = 300


def expression(text: str, start: Sequence[float] = ()) -> Function:
    """Returns the function that `text` writes with + - * / **, names, numbers and the functions of `scalar.FUNCTIONS`.

    Nothing is evaluated but these. Params are the names in alphabetical order, and start at 0.

    Raises:
        InputError: It is no such expression.

    >>> expression("(x - 3)**2").loss(0).data
    9.0
    """
    try:
        if len(text) > _LONGEST:
            raise InputError(f"descend: the expression has over {_LONGEST} characters; type a shorter one")
        with warnings.catch_warnings(action="ignore"):  # such as of "1if x else 2"
            tree = ast.parse(text.strip(), mode="eval").body
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise InputError(f'descend: {shown(text)} is no expression; type for example "(x-3)**2"') from None
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    found = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called}
    names = sorted(found - _CONSTANTS.keys())
    params = {name: Value(number, name) for name, number in zip(names, start or [0.0] * len(names), strict=True)}
    _evaluate(tree, params, checks_only=True)
    if not params:
        raise InputError(f'descend: {shown(text)} has no param; type for example "(x-3)**2"')
    return Function(text, text, [*params.values()], lambda _: _evaluate(tree, params))


def _evaluate(node: ast.AST, params: Mapping[str, Value], checks_only: bool = False) -> Value:
    """Returns the value of an expression; `checks_only`: raises InputError where it is none, whatever the numbers are."""

    def of(child: ast.AST) -> Value:
        return _evaluate(child, params, checks_only)

    match node:
        case ast.Constant(value=float() | int() as number) if not isinstance(number, bool) and abs(number) < 1e300:
            return Value(number)
        case ast.Name(id=name):
            return params[name] if name in params else Value(_CONSTANTS[name])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -of(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return of(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            pair = of(left), of(right)
            exponent = _constant(right) if isinstance(op, ast.Pow) else None
            return pair[0] if checks_only else _OPERATORS[type(op)](pair[0], pair[1] if exponent is None else exponent)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in OF_ONE_NUMBER:
            return of(argument) if checks_only else of(argument).apply(name)
        case ast.Call(func=ast.Name(id="sqrt"), args=[argument], keywords=[]):
            return of(argument) if checks_only else of(argument) ** 0.5
        case ast.Call(func=ast.Name(id=name)):
            raise InputError(
                f"descend: {name}(...) is unknown; known of one number: {enumerated([*OF_ONE_NUMBER, 'sqrt'])}"
            )
        case ast.BinOp(op=ast.BitXor()):
            raise InputError("descend: ^ is no power here; type ** instead, as in (x-3)**2")
    raise InputError(
        f"descend: {shown(ast.unparse(node))} is no part of an expression; known: + - * / **, names and numbers"
    )


def _constant(node: ast.AST) -> float | None:
    """Returns the number of a constant exponent, with which negative numbers have powers too."""
    match node:
        case ast.Constant(value=float() | int() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=float() | int() as number)):
            return -number
    return None


def _plain(name: str, text: str, start: Point, lr: float, *box: tuple[float, float]) -> Function:
    return replace(expression(text, start), name=name, lr=lr, box=box)


def _linear(
    name: str, text: str, features: Sequence[str], rows: Rows, lr: float, *box: tuple[float, float]
) -> Function:
    """Returns a linear fit of the last column of `rows` by the others, the `features`, and a constant."""
    *factors, constant = params = [Value(0.0, name) for name in (*features, "intercept")]

    def loss(sample: int) -> Value:
        *x, target = rows[sample]
        return (sum((factor * one for factor, one in zip(factors, x, strict=True)), constant) - target) ** 2

    table = np.array(rows, np.float64)
    known = np.column_stack([table[:, :-1], np.ones(len(table))])
    answer = tuple(np.linalg.lstsq(known, table[:, -1], rcond=None)[0].tolist())
    return Function(name, text, params, loss, lr, len(rows), answer, box)


def _standardised(rows: Rows) -> Rows:
    table = np.array(rows, np.float64)
    x = table[:, :-1]
    table[:, :-1] = (x - x.mean(axis=0)) / x.std(axis=0)
    return tuple(map(tuple, table.tolist()))


def xor(equal: bool = False) -> Function:
    """Returns the loss of a network of 2, 4 and 1 neurons that learns a xor b. `equal`: all weights begin as 0.5."""
    network = MLP((2, 4, 1))
    samples = [((a, b), 2.0 * (a != b) - 1.0) for a in (0.0, 1.0) for b in (0.0, 1.0)]
    for number, param in enumerate(network.params):
        param.name, param.data = f"w{number}", 0.5 if equal else param.data

    def loss(sample: int) -> Value:
        inputs, target = samples[sample]
        (output,) = network(inputs)
        return (output - target) ** 2

    text = "a network of 2, 4 and 1 neurons that learns a xor b"
    return Function("xor", text, network.params, loss, 0.1, len(samples))


_HOMES: Rows = (
    (52, 2, 171), (61, 2, 189), (68, 3, 224), (75, 3, 241), (83, 3, 252), (90, 4, 290),
    (104, 4, 316), (118, 5, 363), (127, 4, 361), (141, 5, 404), (160, 6, 462), (185, 6, 508),
)  # fmt: skip
"""Living area in square metres, rooms, and price in thousands of twelve made-up homes."""
_LINE: Rows = tuple((float(x), 2.0 * x) for x in range(1, 6))
_PRICE = "per_m2", "per_room"

BUILT_IN: dict[str, Callable[[], Function]] = {
    "parabola": lambda: _plain("parabola", "(x-3)**2", (0,), 0.1, (-1, 7)),
    "bowl": lambda: _plain("bowl", "w**2 + 4*b**2", (3, 2), 0.1, (-4, 4), (-4, 4)),
    "double-well": lambda: _plain("double-well", "(x**2-1)**2 + 0.3*x", (1.6,), 0.02, (-1.7, 1.7)),
    "saddle": lambda: _plain("saddle", "x**2 - y**2 + 0.25*y**4", (1.5, 1e-6), 0.05, (-2, 2), (-2, 2)),
    "plateau": lambda: _plain("plateau", "tanh(x)**2", (3.5,), 0.5, (-4, 4)),
    "rosenbrock": lambda: _plain("rosenbrock", "(1-x)**2 + 100*(y-x**2)**2", (-1.2, 1), 0.001, (-2, 2), (-1, 3)),
    "himmelblau": lambda: _plain("himmelblau", "(x**2+y-11)**2 + (x+y**2-7)**2", (0, 0), 0.01, (-5, 5), (-5, 5)),
    "sharp-flat": lambda: _plain("sharp-flat", "-1.2*exp(-20*(x+1)**2) - exp(-0.2*(x-2)**2)", (-1.3,), 0.01, (-2, 5)),
    "line": lambda: _linear(
        "line", "a line through (1, 2), (2, 4) to (5, 10)", ("slope",), _LINE, 0.05, (0, 4), (-3, 5)
    ),
    "prices": lambda: _linear("prices", "prices of homes by area and rooms: two scales", _PRICE, _HOMES, 5e-5),
    "prices-normalised": lambda: _linear(
        "prices-normalised",
        "prices of homes by area and rooms, of mean 0 and deviation 1",
        _PRICE,
        _standardised(_HOMES),
        0.3,
    ),
    "xor": xor,
}
"""Makers of the functions that have a name."""


def find(text: str) -> Function:
    """Returns the function with this name, or that this expression writes. Raises InputError if it is neither."""
    if text in BUILT_IN:
        return BUILT_IN[text]()
    near = did_you_mean(text, BUILT_IN) if re.fullmatch("[A-Za-z_-]+", text) else ""
    if near or text.isidentifier():
        raise InputError(f"descend: no function {shown(text)}{near}; type {', '.join(BUILT_IN)}, or an expression")
    return expression(text)
