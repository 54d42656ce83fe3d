"""A scalar autograd engine: numbers that remember what they were made of, networks of them, and their graph as SVG.

Source: Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", 1986.

>>> x = Value(2.0, "x")
>>> y = x * x + 3 * x
>>> y.backward()
>>> y.data, x.grad
(10.0, 7.0)
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

from ddpgd.kernels.philox import Purpose, uniforms

FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[float, float], float]]] = {
    "exp": (math.exp, lambda _x, y: y),
    "log": (math.log, lambda x, _y: 1 / x),
    "sin": (math.sin, lambda x, _y: math.cos(x)),
    "cos": (math.cos, lambda x, _y: -math.sin(x)),
    "abs": (abs, lambda x, _y: math.copysign(float(x != 0), x)),
    "tanh": (math.tanh, lambda _x, y: 1 - y * y),
    "relu": (lambda x: x if x > 0 else 0.0, lambda x, _y: float(x > 0)),
    "sigmoid": (lambda x: 0.5 + 0.5 * math.tanh(0.5 * x), lambda _x, y: y * (1 - y)),
}
"""Functions of one number by name: the function, and its derivative from x and y = function(x)."""


class Value:
    """A number `data`, its `name` or operation, and `grad`: the sum of all results' derivatives by it, see `backward`.

    `operands`: what it was made of, each with the derivative by it.
    """

    def __init__(self, data: float, name: str = "", operands: "Sequence[tuple[Value, float]]" = ()) -> None:
        self.data = float(data)
        self.grad = 0.0
        self.name = name
        self.operands = tuple(operands)

    def __add__(self, other: "Value | float") -> "Value":
        right = _value(other)
        return Value(self.data + right.data, "+", [(self, 1.0), (right, 1.0)])

    def __mul__(self, other: "Value | float") -> "Value":
        right = _value(other)
        return Value(self.data * right.data, "*", [(self, right.data), (right, self.data)])

    def __pow__(self, other: "Value | float") -> "Value":
        power = _value(other)
        data = math.pow(self.data, power.data)
        slope = power.data * math.pow(self.data, power.data - 1) if power.data else 0.0
        by_power = [(power, data * math.log(self.data))] if isinstance(other, Value) else []
        return Value(data, f"**{power.data:g}", [(self, slope), *by_power])

    def __neg__(self) -> "Value":
        return self * -1

    def __sub__(self, other: "Value | float") -> "Value":
        return self + _value(other) * -1

    def __truediv__(self, other: "Value | float") -> "Value":
        return self * _value(other) ** -1

    def __rsub__(self, other: float) -> "Value":
        return _value(other) - self

    def __rtruediv__(self, other: float) -> "Value":
        return _value(other) / self

    __radd__ = __add__
    __rmul__ = __mul__

    def apply(self, function: str) -> "Value":
        """Returns a function of this number; `function`: a key of FUNCTIONS."""
        compute, slope = FUNCTIONS[function]
        data = compute(self.data)
        return Value(data, function, [(self, slope(self.data, data))])

    def backward(self) -> None:
        """Adds the derivatives of this number to `grad` of all that it was made of."""
        order = graph(self)
        slopes = {id(value): float(value is self) for value in order}
        for value in reversed(order):
            value.grad += slopes[id(value)]
            for operand, slope in value.operands:
                slopes[id(operand)] += slope * slopes[id(value)]


def _value(number: Value | float) -> Value:
    return number if isinstance(number, Value) else Value(number)


def graph(root: Value) -> list[Value]:
    """Returns all values that `root` was made of, operands before results, `root` last."""
    order: dict[int, Value] = {}
    stack = [(root, False)]
    while stack:
        value, done = stack.pop()
        if done:
            order.setdefault(id(value), value)
        elif id(value) not in order:
            stack += [(value, True), *((operand, False) for operand, _ in reversed(value.operands))]
    return list(order.values())


class MLP:
    """A network of dense `layers`: for each, its neurons' weights, with the bias last. The last layer is linear."""

    def __init__(self, widths: Sequence[int], activation: str = "tanh", seed: int = 0) -> None:
        self.activation = activation
        self.layers: list[list[list[Value]]] = []
        for number, (fan_in, fan_out) in enumerate(pairwise(widths)):
            drawn = 2 * uniforms(seed, Purpose.PARAMS, number, fan_in * fan_out).reshape(fan_out, fan_in) - 1
            self.layers.append([[*map(Value, row), Value(0)] for row in (drawn * fan_in**-0.5).tolist()])

    @property
    def params(self) -> list[Value]:
        """All weights and biases, neuron by neuron."""
        return [value for layer in self.layers for neuron in layer for value in neuron]

    def __call__(self, inputs: Sequence[Value | float]) -> list[Value]:
        """Returns the outputs for one sample."""
        values = [_value(number) for number in inputs]
        for layer in self.layers:
            sums = [sum((w * x for w, x in zip(weights, values, strict=True)), bias) for *weights, bias in layer]
            values = sums if layer is self.layers[-1] else [one.apply(self.activation) for one in sums]
        return values


def draw(root: Value) -> str:
    """Returns the graph of `root` as SVG: each value with its name or operation, its number and its gradient."""
    places: dict[int, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    parts = []
    for value in graph(root):
        column = max((places[id(operand)][0] + 1 for operand, _ in value.operands), default=0)
        places[id(value)] = column, rows.setdefault(column, 0)
        rows[column] += 1
        x, y = 10 + 200 * column, 10 + 56 * places[id(value)][1]
        for left, top in (places[id(operand)] for operand, _ in value.operands):
            parts.append(f'<path d="M{160 + 200 * left} {32 + 56 * top} L{x} {y + 22}" stroke="#888"/>')
        parts.append(f'<rect x="{x}" y="{y}" width="150" height="44" rx="6" fill="#eef" stroke="#336"/>')
        parts.append(f'<text x="{x + 8}" y="{y + 18}">{escape(value.name)} = {value.data:.4g}</text>')
        parts.append(f'<text x="{x + 8}" y="{y + 36}">gradient {value.grad:.4g}</text>')
    size = f'width="{200 * len(rows) - 30}" height="{56 * max(rows.values()) + 10}" font-family="sans-serif"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-size="13">', *parts, "</svg>\n"])
