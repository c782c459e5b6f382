"""Read the pickled index of a file written by torch.save without executing it.

A pickle is a program. This module interprets the few opcodes that such an index needs;
:mod:`pickletools` only splits the bytes into opcodes. Function names stay names and are never imported.
Four of them are known: the two that build a tensor, ``torch.Size`` and ``OrderedDict``. All others are
an error. The result is plain data with :class:`Stored` in place of tensors.
"""

from __future__ import annotations

import math
import pickletools
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


def _run(data: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def above_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in _VALUES:
                stack.append(_VALUES[name])
            case name if name in _LITERALS:
                stack.append(argument)
            case "GLOBAL":
                stack.append(Name(".".join(str(argument).split(" "))))
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(above_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                size = int(name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][_key(key)] = value
            case "SETITEMS":
                items = above_mark()
                stack[-1].update(zip(map(_key, items[0::2]), items[1::2], strict=True))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                items = above_mark()
                stack[-1].extend(items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "STOP":
                return stack.pop()
            case unknown:
                raise FormatError(f"expected the index of a file torch.save wrote, found the instruction {unknown}")
    raise FormatError("expected the index of a file torch.save wrote, found a truncated one")


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
