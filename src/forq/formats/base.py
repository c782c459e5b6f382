"""What a format is: how the quantized layers of a checkpoint are recognised, read and saved.

A format is one file in this package. The file defines a subclass of :class:`Format` and one instance of it called
``format``; the file name is the name of the format, and nothing else registers it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from forq.checkpoints import Checkpoint, Relaid
from forq.layers.layer import FiledCodes, LayerSpec, Live, Parts, ZeroPoints
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight


@dataclass(frozen=True, slots=True)
class About:
    """A format in words; ``docs/formats.md`` and ``forq inspect`` are made of these.

    Attributes:
        title: name of the format as people write it.
        bits: widths of its codes, in words: ``2, 3, 4, 8``.
        moves: kinds of leaves that can move (:data:`forq.coordinates.leaf.GROUPS`).
        exported: what a saved checkpoint is and what is lost on the way; completes "a save is …".
        exceptions: bytes that a save changes although nothing moved there, a phrase each; usually none.
        library: the library that owns the format, and the version that was seen to load what forq saved.
        layout: the tensors of a layer and their shapes, a line each.
        zero_points: what decides a zero point where configuration and tensors could disagree, as sentences; ""
            where they cannot.
    """

    title: str
    bits: str
    moves: tuple[str, ...]
    exported: str
    library: str
    layout: tuple[str, ...]
    exceptions: tuple[str, ...] = ()
    zero_points: str = ""


class Format(ABC):
    """A codec between the files of a checkpoint and its quantized layers. It holds no state.

    Attributes:
        about: the format in words.
    """

    about: About

    @property
    def name(self) -> str:
        """Name of the format: that of the file that defines it."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether a checkpoint is of this format, by what it holds, never by a library's class path."""

    @abstractmethod
    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized layers that can move, by module name, checked against headers and settings.

        Raises:
            FormatError: tensors are missing, contradict each other or the settings, or are not supported.
        """

    @abstractmethod
    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """The weight of a layer as integers, its continuous tensors and its bias; no float copy is made.

        Raises:
            FormatError: a value is out of its range.
        """

    def read_live(self, ckpt: Checkpoint, spec: LayerSpec, live: Live) -> Tensor:
        """One continuous tensor of a layer; by default the tensor of that name."""
        return ckpt.read(live.name)

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes | None:
        """How the codes of a layer are packed, so that they can move; None where they cannot."""
        return None

    def zero_points(self, ckpt: Checkpoint, spec: LayerSpec) -> ZeroPoints | None:
        """How the integer zero points of a layer are packed; None where the layer has none that move."""
        return None

    def beside(self, ckpt: Checkpoint) -> dict[str, str]:
        """Tensors of no layer that can move in place, and their kinds (:data:`forq.coordinates.leaf.GROUPS`)."""
        return {}

    def fixed(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """Quantized layers that nothing can move, by module name."""
        return {}

    def unlike(self, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
        """What the owner of the format computes and forq does not, a sentence each, for users."""
        return ()

    def exported(self, ckpt: Checkpoint) -> str:
        """What a save of this checkpoint is; ``about.exported`` where all checkpoints are alike in it."""
        return self.about.exported

    def relaid(self, ckpt: Checkpoint, moved: Mapping[str, Tensor]) -> Relaid:
        """What a save writes; by default the bytes of what moved are replaced.

        Args:
            moved: tensors by name, read one at a time.
        """
        return Relaid(moved)


@dataclass(frozen=True, slots=True)
class Survey:
    """What an export has to know of all layers before it writes the first.

    Attributes:
        least: the smallest zero point.
        symmetric: whether each zero point is the middle of its codes, 2^(bits − 1).
        reordered: whether the groups of a layer are not simply consecutive inputs (act-order).
        written: names of the layers that are written in integers.
        left: names of the linear layers that stay in float.
    """

    least: int
    symmetric: bool
    reordered: bool = False
    written: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class ExportableFormat(Format):
    """A format that a layer of another format can be written as: ``forq export --to``."""

    @abstractmethod
    def pack(self, weight: QuantWeight, survey: Survey) -> dict[str, Tensor]:
        """The tensors stored for a layer beside its scales and bias, by the ends of their names.

        Args:
            survey: of all layers; formats that have several conventions choose by it.

        Raises:
            FormatError: the format cannot hold this weight.
        """

    @abstractmethod
    def pack_scales(self, scales: Tensor) -> dict[str, Tensor]:
        """The tensor stored for scales (groups, out), by the end of its name."""

    @abstractmethod
    def quantization_config(self, bits: int, group_size: int, survey: Survey) -> dict[str, object]:
        """The ``quantization_config`` of a checkpoint whose layers :meth:`pack` made.

        Args:
            group_size: inputs that share a scale; −1 is a whole row.
            survey: as given to :meth:`pack`.
        """


def inputs_here(activations: Activations, owner: str) -> str:
    """How forq treats inputs that the owner of a format rounds; the end of a sentence of ``unlike``."""
    if activations != "int8":
        return (
            f"here inputs stay in float: losses are those of the weights alone, and {owner}'s differ by what that "
            "rounding costs"
        )
    return (
        "here --activations int8 rounds them in a way of its own, in the layers that allow it: losses differ from "
        f"{owner}'s by how the two round"
    )
