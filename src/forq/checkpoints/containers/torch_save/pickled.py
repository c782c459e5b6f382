"""The index of a file torch.save wrote, read without running anything: a pickle's opcodes, and the few that it takes.

A pickle is a program. This reads its instructions one by one (:mod:`pickletools` only splits them), keeps names of
functions as names, never imports one, and knows four of them: the two that make a tensor, ``torch.Size`` and
``OrderedDict``. Anything else is an error. What comes out is plain data with :class:`Stored` in place of tensors.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

from forq.errors import FormatError

_SOLID = frozenset({"NONE", "NEWTRUE", "NEWFALSE"})
_MOST_AXES = 16
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SAID = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"})


@dataclass(frozen=True, slots=True)
class Name:
    """A function or type by its name, ``torch.float16``: never looked up."""

    said: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as the index describes it.

    Attributes:
        kind: name of its storage's type, ``torch.HalfStorage``.
        key: of the storage among the file's records.
        start: its first element there.
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
    """What the pickle describes: dictionaries, lists, tuples, numbers, text, :class:`Name` and :class:`Stored`.

    Raises:
        FormatError: it is damaged, or wants more than such an index needs.
    """
    try:
        return _run(data)
    except FormatError:
        raise
    # The splitting itself, or an instruction that finds nothing to work on.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise FormatError(f"expected the index of a file torch.save wrote, found {type(error).__name__}") from error


def _run(data: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def above_mark() -> list[Any]:
        at = marks.pop()
        found = stack[at:]
        del stack[at:]
        return found

    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in _SOLID:
                stack.append(_VALUES[name])
            case name if name in _SAID:
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
                stack.append(_made(function, arguments))
            case "STOP":
                return stack.pop()
            case other:
                raise FormatError(f"expected the index of a file torch.save wrote, found the instruction {other}")
    raise FormatError("expected the index of a file torch.save wrote, found its end cut off")


def _key(said: Any) -> str:
    """The key of a dictionary: text only, since the hash of nested tuples can take for ever."""
    if not isinstance(said, str):
        raise FormatError(f"expected text as keys, found {type(said).__name__}")
    return said


def _storage(said: Any) -> _Storage:
    """A storage from ('storage', type, key, place, elements)."""
    what, kind, key, _, _ = said
    if what != "storage" or not isinstance(kind, Name) or not isinstance(key, str):
        raise FormatError(f"expected a storage, found {type(said).__name__}")
    return _Storage(kind.said, key)


def _made(function: Any, arguments: Any) -> Any:
    said = function.said if isinstance(function, Name) else ""
    if said == "torch._utils._rebuild_tensor_v2":
        storage, start, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage):
            raise FormatError(f"expected a tensor of a storage, found one of {type(storage).__name__}")
        return Stored(storage.kind, storage.key, start, _laid(start, shape, strides))
    if said == "torch._utils._rebuild_parameter" and isinstance(arguments[0], Stored):
        return arguments[0]
    if said == "torch.Size":
        return tuple(arguments[0])
    if said == "collections.OrderedDict" and not arguments:
        return {}
    raise FormatError(f"expected tensors and plain values, found a call of {said!r:.80}; nothing of it was run")


def _laid(start: Any, shape: Any, strides: Any) -> tuple[int, ...]:
    """The shape of a tensor whose elements lie end to end."""
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or not len(shape) == len(strides) <= _MOST_AXES:
        raise FormatError(f"expected shape and strides of a tensor, found {type(shape).__name__}")
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (start, *shape, *strides)):
        raise FormatError("expected whole numbers as start, shape and strides of a tensor")
    wanted = (math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    apart = any(stride != want for stride, want, size in zip(strides, wanted, shape, strict=True) if size > 1)
    if apart and math.prod(shape):
        raise FormatError(f"expected a tensor whose elements lie end to end, found strides {strides} of shape {shape}")
    return shape
