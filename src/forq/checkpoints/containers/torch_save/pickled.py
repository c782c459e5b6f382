"""Read the pickled index of a file written by torch.save without executing it.

A pickle is a program. This module interprets the few opcodes that such an index needs;
:mod:`pickletools` only splits the bytes into opcodes. Function names stay names and are never imported.
Four of them are known: the two that build a tensor, ``torch.Size`` and ``OrderedDict``. All others are
an error. The result is plain data with :class:`Stored` in place of tensors.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forq.errors import FormatError

_MOST_AXES = 16
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"})


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a function or type, such as ``torch.float16``; it is never looked up."""

    text: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as the index describes it.

    Attributes:
        kind: type of its storage, ``torch.HalfStorage`` for example.
        key: name of the storage among the file's records.
        start: index of the tensor's first element in the storage.
    """

    kind: str
    key: str
    start: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Storage:
    kind: str
    key: str


def read(data: bytes) -> Any:
    """Interpret a pickle: dictionaries, lists, tuples, numbers, texts, :class:`Name` and :class:`Stored`.

    Raises:
        FormatError: the pickle is damaged, or uses an opcode or function that such an index does not need.
    """
    try:
        return _run(data)
    except FormatError:
        raise
    # Raised by pickletools, or by an opcode whose operands are missing.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise FormatError(f"expected the index of a file torch.save wrote, found {type(error).__name__}") from error


def _run(data: bytes) -> object:
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name == "STOP":
            return machine.stack.pop()
        if name in _VALUES:
            machine.stack.append(_VALUES[name])
        elif name in _LITERALS:
            machine.stack.append(argument)
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](machine, argument)
        elif name not in _NO_EFFECT:
            raise FormatError(f"expected the index of a file torch.save wrote, found the instruction {name}")
    raise FormatError("expected the index of a file torch.save wrote, found a truncated one")


class _Machine:
    """The stack machine of a pickle: one method for each kind of instruction."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[object, object] = {}

    def mark(self, argument: object) -> None:
        self._marks.append(len(self.stack))

    def name(self, argument: object) -> None:
        self.stack.append(Name(".".join(str(argument).split(" "))))

    def long_tuple(self, argument: object) -> None:
        self.stack.append(tuple(self._above_mark()))

    def short_tuple(self, size: int) -> None:
        self.stack[-size:] = [tuple(self.stack[-size:])]

    def set_item(self, argument: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_key(key)] = value

    def set_items(self, argument: object) -> None:
        items = self._above_mark()
        self.stack[-1].update(zip(map(_key, items[0::2]), items[1::2], strict=True))

    def append(self, argument: object) -> None:
        value = self.stack.pop()
        self.stack[-1].append(value)

    def extend(self, argument: object) -> None:
        items = self._above_mark()
        self.stack[-1].extend(items)

    def put(self, argument: object) -> None:
        self._memo[argument] = self.stack[-1]

    def memoize(self, argument: object) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def get(self, argument: object) -> None:
        self.stack.append(self._memo[argument])

    def storage(self, argument: object) -> None:
        self.stack.append(_storage(self.stack.pop()))

    def call(self, argument: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_call(function, arguments))

    def _above_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


_NO_EFFECT = ("PROTO", "FRAME")

_INSTRUCTIONS: Mapping[str, Callable[[_Machine, object], None]] = {
    "GLOBAL": _Machine.name,
    "MARK": _Machine.mark,
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE": _Machine.long_tuple,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "BINPERSID": _Machine.storage,
    "REDUCE": _Machine.call,
}
"""The instructions that an index of tensors needs; everything else is refused."""


def _key(value: object) -> str:
    """Check a dictionary's key: only text is accepted, since hashing nested tuples can take for ever."""
    if not isinstance(value, str):
        raise FormatError(f"expected text as keys, found {type(value).__name__}")
    return value


def _storage(persistent_id: Any) -> _Storage:
    """A storage from ('storage', type, key, device, elements)."""
    tag, kind, key, _, _ = persistent_id
    if tag != "storage" or not isinstance(kind, Name) or not isinstance(key, str):
        raise FormatError(f"expected a storage, found {type(persistent_id).__name__}")
    return _Storage(kind.text, key)


def _call(function: object, arguments: Any) -> Any:
    """The result of one of the four known functions."""
    name = function.text if isinstance(function, Name) else ""
    if name == "torch._utils._rebuild_tensor_v2":
        storage, start, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage):
            raise FormatError(f"expected a tensor with a storage, found {type(storage).__name__}")
        return Stored(storage.kind, storage.key, start, _contiguous(start, shape, strides))
    if name == "torch._utils._rebuild_parameter" and isinstance(arguments[0], Stored):
        return arguments[0]
    if name == "torch.Size":
        return tuple(arguments[0])
    if name == "collections.OrderedDict" and not arguments:
        return {}
    raise FormatError(f"expected tensors and plain values, found a call of {name!r:.80}; nothing of it was run")


def _contiguous(start: Any, shape: Any, strides: Any) -> tuple[int, ...]:
    """The shape of a tensor, checked to be contiguous."""
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or not len(shape) == len(strides) <= _MOST_AXES:
        raise FormatError(f"expected shape and strides of a tensor, found {type(shape).__name__}")
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (start, *shape, *strides)):
        raise FormatError("expected whole numbers as start, shape and strides of a tensor")
    expected = (math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    scattered = any(stride != need for stride, need, size in zip(strides, expected, shape, strict=True) if size > 1)
    if scattered and math.prod(shape):
        raise FormatError(f"expected a tensor whose elements lie end to end, found strides {strides} of shape {shape}")
    return shape
