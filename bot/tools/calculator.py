"""Arithmetic on text: an own small parser over exact fractions, with every step bounded.

Owns the grammar, the bounds and how a result is written. Nothing is ever handed to Python's evaluator; words of
human language ("plus", "mal") are not known here.

    sum     = product  { ("+" | "-") product }
    product = signed   { ("*" | "/" | "//" | "%" ) signed }
    signed  = ("+" | "-") signed | power
    power   = postfix  [ ("**" | "^") signed ]
    postfix = atom { "!" }
    atom    = number | constant | function "(" sum { "," sum } ")" | "(" sum ")"
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

from bot.tools.registry import ToolFailed

_MAX_EXPRESSION_CHARS = 1000
_MAX_DEPTH = 60
_MAX_BITS = 12_000
"""Largest numerator or denominator: some 3,600 decimal digits; every operation on such numbers takes microseconds."""
_MAX_WHOLE_DIGITS = 60
_SIGNIFICANT_DIGITS = 15

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d[\d_]*)?\.?\d[\d_]*\.?(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-zπτ√]+\d*)|(?P<sign>\*\*|//|[-+*/%^(),!]))"
)
_SPELLINGS = str.maketrans(
    {"×": "*", "·": "*", "⋅": "*", "÷": "/", "∶": "/", "−": "-", "–": "-", "²": "^2", "³": "^3"}
)


class CannotCalculate(ToolFailed):
    """The expression has no value; the text says why."""


def calculate(expression: str) -> str:
    """The value of an expression, written for people: `0.1 + 0.2` gives `0.3`.

    Raises: `CannotCalculate` if it is not an expression, has no real value, or would be too large.
    """
    return format_number(evaluate(expression))


def evaluate(expression: str) -> Fraction:
    """The value as an exact fraction; irrational functions give the nearest double.

    Raises: `CannotCalculate`.
    """
    if len(expression) > _MAX_EXPRESSION_CHARS:
        raise CannotCalculate(f"That expression is too long (at most {_MAX_EXPRESSION_CHARS} characters).")
    parser = _Parser(_tokens(expression.translate(_SPELLINGS)))
    value = parser.parse_sum()
    parser.expect_end()
    return value


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    text = text.rstrip().removesuffix("=").rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise CannotCalculate(f"I cannot read {text[position:].strip()[:20]!r} as arithmetic.")
        tokens.append(_Token(str(match.lastgroup), match[match.lastgroup or 0]))
        position = match.end()
    if not tokens:
        raise CannotCalculate("There is nothing to calculate.")
    for left, right in pairwise(tokens):
        if left.kind == right.kind == "number":
            raise CannotCalculate(f"An operator is missing between {left.text} and {right.text}.")
    return tokens


@dataclass(slots=True)
class _Parser:
    """Computes while it reads: there is no tree."""

    tokens: list[_Token]
    position: int = 0
    depth: int = field(default=0)

    def _next(self) -> str | None:
        return self.tokens[self.position].text if self.position < len(self.tokens) else None

    def _accept(self, *signs: str) -> str | None:
        found = self._next()
        if found in signs:
            self.position += 1
            return found
        return None

    def expect_end(self) -> None:
        if (left := self._next()) is not None:
            raise CannotCalculate(f"I did not expect {left[:20]!r} there.")

    def parse_sum(self) -> Fraction:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise CannotCalculate("That expression is nested too deeply.")
        value = self._parse_product()
        while sign := self._accept("+", "-"):
            right = self._parse_product()
            value = _bounded(value + right if sign == "+" else value - right)
        self.depth -= 1
        return value

    def _parse_product(self) -> Fraction:
        value = self._parse_signed()
        while sign := self._accept("*", "/", "//", "%"):
            right = self._parse_signed()
            if sign != "*" and not right:
                raise CannotCalculate("Division by zero has no result.")
            if sign == "*":
                value *= right
            elif sign == "/":
                value /= right
            elif sign == "//":
                value = Fraction(value // right)
            else:
                value %= right
            value = _bounded(value)
        return value

    def _parse_signed(self) -> Fraction:
        is_negative = False
        while sign := self._accept("+", "-"):
            is_negative ^= sign == "-"
        value = self._parse_power()
        return -value if is_negative else value

    def _parse_power(self) -> Fraction:
        base = self._parse_postfix()
        if self._accept("**", "^") is None:
            return base
        self.depth += 1  # 2**2**2**… nests to the right
        if self.depth > _MAX_DEPTH:
            raise CannotCalculate("That expression is nested too deeply.")
        exponent = self._parse_signed()
        self.depth -= 1
        return _power(base, exponent)

    def _parse_postfix(self) -> Fraction:
        value = self._parse_atom()
        while self._accept("!"):
            value = _factorial(value)
        return value

    def _parse_atom(self) -> Fraction:
        if self.position >= len(self.tokens):
            raise CannotCalculate("The expression ends too early.")
        token = self.tokens[self.position]
        self.position += 1
        if token.kind == "number":
            return _number(token.text)
        if token.kind == "name":
            return self._parse_name(token.text)
        if token.text == "(":
            value = self.parse_sum()
            self._expect_closing()
            return value
        raise CannotCalculate(f"I did not expect {token.text!r} there.")

    def _parse_name(self, name: str) -> Fraction:
        name = name.lower()
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        function = _FUNCTIONS.get(name)
        if function is None:
            raise CannotCalculate(
                f"I do not know {name[:20]!r}. Known functions: {', '.join(sorted(_FUNCTIONS))}."
            )
        if self._accept("(") is None:
            raise CannotCalculate(f"{name} needs its argument in parentheses.")
        arguments = [self.parse_sum()]
        while self._accept(","):
            arguments.append(self.parse_sum())
        self._expect_closing()
        least, most, compute = function
        if not least <= len(arguments) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise CannotCalculate(f"{name} takes {wanted} argument{'' if wanted == '1' else 's'}.")
        return _bounded(compute(*arguments))

    def _expect_closing(self) -> None:
        if self._accept(")") is None:
            raise CannotCalculate("A closing parenthesis is missing.")


def _number(text: str) -> Fraction:
    mantissa, _, exponent = text.replace("_", "").lower().partition("e")
    if exponent and (len(exponent) > 5 or abs(int(exponent)) > 3000):
        raise CannotCalculate("That number is too large.")
    return _bounded(Fraction(mantissa) * Fraction(10) ** int(exponent or 0))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise CannotCalculate("The result is too large.")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator == 1:
        if not base:
            if exponent < 0:
                raise CannotCalculate("Division by zero has no result.")
            return Fraction(int(exponent == 0))
        # The size is known before anything is multiplied; ±1 keeps its size whatever the exponent.
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(base) == 1:
            return base if exponent % 2 else Fraction(1)
        if bits * abs(exponent) > _MAX_BITS * 2:
            raise CannotCalculate("The result is too large.")
        return _bounded(Fraction(base ** int(exponent)))
    if base < 0:
        raise CannotCalculate("A negative number has no real power with a fraction as exponent.")
    if exponent == Fraction(1, 2):
        return _square_root(base)
    return _of_double(math.pow, base, exponent)


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise CannotCalculate("Only whole numbers from 0 have a factorial.")
    if value > 1000:
        raise CannotCalculate("The result is too large.")
    return _bounded(Fraction(math.factorial(int(value))))


def _square_root(value: Fraction) -> Fraction:
    if value < 0:
        raise CannotCalculate("A negative number has no real square root.")
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    return root if root * root == value else _of_double(math.sqrt, value)


def _of_double(function: Callable[..., float], *values: Fraction) -> Fraction:
    """Apply a function of doubles; what it returns becomes the fraction of its shortest spelling (0.1, not 0.1000…055)."""
    try:
        result = function(*(float(value) for value in values))
    except OverflowError:
        raise CannotCalculate("The result is too large.") from None
    except (ValueError, ZeroDivisionError):
        raise CannotCalculate("That has no real value.") from None
    if not math.isfinite(result):
        raise CannotCalculate("The result is too large.")
    return Fraction(repr(result))


def _logarithm(value: Fraction, base: Fraction) -> Fraction:
    if value <= 0 or base <= 0 or base == 1:
        raise CannotCalculate("Only numbers above 0 have a logarithm.")
    if base == 10:
        return _of_double(math.log10, value)
    if base == 2:
        return _of_double(math.log2, value)
    return _of_double(math.log, value, base)


def _round(value: Fraction, digits: Fraction = Fraction(0)) -> Fraction:
    if digits.denominator != 1 or abs(digits) > 100:
        raise CannotCalculate("Round to a whole number of digits, at most 100.")
    scale = Fraction(10) ** int(digits)
    # Half away from zero, as people expect of "round"; Python's own rounds 2.5 to 2.
    rounded = math.floor(abs(value) * scale + Fraction(1, 2))
    return Fraction(rounded if value >= 0 else -rounded) / scale


def _doubles(function: Callable[[float], float]) -> Callable[[Fraction], Fraction]:
    return lambda value: _of_double(function, value)


def _circular(function: Callable[[float], float]) -> Callable[[Fraction], Fraction]:
    """Like `_doubles`, but what is only the rounding of pi becomes 0: sin(pi) is not 1.2e-16 to anybody."""
    return lambda value: (
        result if abs(result := _of_double(function, value)) > Fraction(1, 10**15) else Fraction(0)
    )


def _cube_root(value: Fraction) -> Fraction:
    return _of_double(lambda number: math.copysign(round(abs(number) ** (1 / 3), 15), number), value)


_CONSTANTS: Mapping[str, Fraction] = {
    "pi": Fraction(repr(math.pi)),
    "π": Fraction(repr(math.pi)),
    "e": Fraction(repr(math.e)),
    "tau": Fraction(repr(math.tau)),
    "τ": Fraction(repr(math.tau)),
}

_FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Fraction]]] = {
    "sqrt": (1, 1, _square_root),
    "√": (1, 1, _square_root),
    "cbrt": (1, 1, _cube_root),
    "abs": (1, 1, abs),
    "round": (1, 2, _round),
    "floor": (1, 1, lambda value: Fraction(math.floor(value))),
    "ceil": (1, 1, lambda value: Fraction(math.ceil(value))),
    "factorial": (1, 1, _factorial),
    "exp": (1, 1, _doubles(math.exp)),
    "ln": (1, 1, lambda value: _logarithm(value, _CONSTANTS["e"])),
    "log": (1, 2, lambda value, base=Fraction(10): _logarithm(value, base)),
    "log10": (1, 1, lambda value: _logarithm(value, Fraction(10))),
    "log2": (1, 1, lambda value: _logarithm(value, Fraction(2))),
    "sin": (1, 1, _circular(math.sin)),
    "cos": (1, 1, _circular(math.cos)),
    "tan": (1, 1, _circular(math.tan)),
    "asin": (1, 1, _doubles(math.asin)),
    "acos": (1, 1, _doubles(math.acos)),
    "atan": (1, 1, _doubles(math.atan)),
    "degrees": (1, 1, _doubles(math.degrees)),
    "radians": (1, 1, _doubles(math.radians)),
    "min": (1, 100, min),
    "max": (1, 100, max),
}


def format_number(value: Fraction) -> str:
    """Exact where that is short (42, 0.3), else 15 significant digits (0.333333333333333, 1.5e+80)."""
    if value.denominator == 1:
        whole = str(value.numerator)
        if len(whole.lstrip("-")) <= _MAX_WHOLE_DIGITS:
            return whole
    exact = _exact_decimal(value)
    if exact is not None:
        return exact
    if not value:
        return "0"
    return _scientific(value)


def _exact_decimal(value: Fraction) -> str | None:
    """The whole decimal fraction if it ends within the significant digits."""
    places = 0
    rest = value.denominator
    while rest % 10 == 0:
        rest //= 10
        places += 1
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
            places += 1
        if places > 60:
            return None
    if rest != 1:
        return None
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    text = text.rstrip("0").rstrip(".") if "." in text else text
    if len(text.replace(".", "").lstrip("0")) > _SIGNIFICANT_DIGITS or len(text) > _SIGNIFICANT_DIGITS + 7:
        return None
    return f"-{text}" if value < 0 else text


def _scientific(value: Fraction) -> str:
    """Round to the significant digits with whole numbers only: doubles end at 1e308, fractions do not."""
    size = abs(value)
    exponent = len(str(size.numerator)) - len(str(size.denominator))
    if Fraction(10) ** exponent > size:
        exponent -= 1
    scaled = size * Fraction(10) ** (_SIGNIFICANT_DIGITS - 1 - exponent)
    digits = str(math.floor(scaled + Fraction(1, 2)))
    if len(digits) > _SIGNIFICANT_DIGITS:
        digits, exponent = digits[:-1], exponent + 1
    if -6 < exponent < _SIGNIFICANT_DIGITS:
        padded = digits.rjust(len(digits) - min(exponent, 0), "0")  # at least one digit before the point
        point = max(exponent, 0) + 1
        text = f"{padded[:point]}.{padded[point:]}".rstrip("0").rstrip(".")
    else:
        mantissa = f"{digits[0]}.{digits[1:]}".rstrip("0").rstrip(".")
        text = f"{mantissa}e{exponent:+d}"
    return f"-{text}" if value < 0 else text
