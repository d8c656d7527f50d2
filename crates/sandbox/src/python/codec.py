"""Values between the process of the program and the process of the tests, one JSON object per line over descriptor 3.

Plain values are copied; anything else stays where it is and travels as a number. Nothing that is read here can run code.
"""

import json
import sys

if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)
MAX_LINE = 64 << 20
MAX_DEPTH = 200


class Gone(BaseException):
    """The other side ended."""


class Unsupported(BaseException):
    """A value that cannot be sent, or a reply that makes no sense."""


class Channel:
    def __init__(self):
        self.input = open(3, "rb", buffering=1 << 16, closefd=False)
        self.output = open(3, "wb", buffering=0, closefd=False)

    def send(self, message):
        try:
            rest = memoryview(json.dumps(message).encode("ascii") + b"\n")
            while rest:
                rest = rest[self.output.write(rest) :]
        except OSError:
            raise Gone from None

    def receive(self):
        try:
            line = self.input.readline(MAX_LINE)
        except OSError:
            raise Gone from None
        if not line.endswith(b"\n"):
            raise Gone
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise Unsupported("not JSON") from None


# Types whose values travel as they are; those of int do when they are short.
PLAIN = {str, bool, float, type(None)}
ATOMS = PLAIN | {int}
SHORT = 2000


def items_as_they_are(items):
    """Whether a list needs no work item by item."""
    kinds = set(map(type, items))
    if int not in kinds:
        return kinds <= PLAIN
    kinds.discard(int)
    return kinds <= PLAIN and max(map(int.bit_length, [i for i in items if type(i) is int])) < SHORT


def encode(value, keep, depth=0):
    """`keep` turns what cannot be copied into what is sent in its place."""
    if type(value) in PLAIN:
        return value
    if depth > MAX_DEPTH:
        raise Unsupported("nested too deeply")

    def deeper(items):
        items = list(items)
        return items if items_as_they_are(items) else [encode(item, keep, depth + 1) for item in items]

    if isinstance(value, int):
        value = int(value)
        return value if value.bit_length() < SHORT else {"x": hex(value)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return deeper(list.__iter__(value))
    if isinstance(value, tuple):
        return {"t": deeper(tuple.__iter__(value))}
    if isinstance(value, dict):
        return {"d": [deeper(pair) for pair in dict.items(value)]}
    if isinstance(value, frozenset):
        return {"z": deeper(frozenset.__iter__(value))}
    if isinstance(value, set):
        return {"s": deeper(set.__iter__(value))}
    if isinstance(value, (bytes, bytearray)):
        return {"b" if isinstance(value, bytes) else "B": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [float.__repr__(value.real), float.__repr__(value.imag)]}
    if isinstance(value, range):
        return {"r": [value.start, value.stop, value.step]}
    kind = type(value)
    name = (kind.__module__, kind.__qualname__)
    if name in (("decimal", "Decimal"), ("fractions", "Fraction")):
        return {"n": [name[0], name[1], str(value)]}
    if name == ("collections", "deque"):
        return {"q": deeper(value)}
    if name[0] == "datetime" and name[1] in ("date", "datetime", "time") and getattr(value, "tzinfo", None) is None:
        return {"n": [name[0], name[1], value.isoformat()]}
    if name[0] == "numpy":
        if hasattr(value, "item") and getattr(value, "shape", None) == ():
            return encode(value.item(), keep, depth + 1)
        if hasattr(value, "tolist"):
            return {"a": encode(value.tolist(), keep, depth + 1)}
    return {"o": keep(value)}


def decode(sent, kept, depth=0):
    """`kept` turns the number of a kept value into something that stands for it."""
    if depth > MAX_DEPTH + 1:
        raise Unsupported("nested too deeply")
    if isinstance(sent, list):
        if set(map(type, sent)) <= ATOMS:
            return sent
        return [decode(item, kept, depth + 1) for item in sent]
    if not isinstance(sent, dict):
        return sent
    try:
        ((tag, inner),) = sent.items()
        deeper = lambda: decode(inner, kept, depth) if isinstance(inner, list) else [decode(i, kept, depth + 1) for i in inner]
        if tag == "x":
            return int(inner, 16)
        if tag == "t":
            return tuple(deeper())
        if tag == "d":
            return {decode(k, kept, depth + 1): decode(v, kept, depth + 1) for k, v in inner}
        if tag == "s":
            return set(deeper())
        if tag == "z":
            return frozenset(deeper())
        if tag == "b":
            return bytes.fromhex(inner)
        if tag == "B":
            return bytearray.fromhex(inner)
        if tag == "c":
            return complex(float(inner[0]), float(inner[1]))
        if tag == "r":
            return range(*inner)
        if tag == "q":
            import collections

            return collections.deque(deeper())
        if tag == "a":
            import numpy

            return numpy.array(deeper())
        if tag == "n":
            module, name, text = inner
            if module == "decimal" and name == "Decimal":
                import decimal

                return decimal.Decimal(text)
            if module == "fractions" and name == "Fraction":
                import fractions

                return fractions.Fraction(text)
            if module == "datetime" and name in ("date", "datetime", "time"):
                import datetime

                return getattr(datetime, name).fromisoformat(text)
        if tag == "o":
            return kept(inner)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError, ArithmeticError) as error:
        raise Unsupported(f"a reply that is no value: {error}") from None
    raise Unsupported("a reply that is no value")
