"""Quantize a float checkpoint folder, tensor by tensor; the whole model is never in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint, finite
from forq.checkpoints.replace import check_destination, replace_folder
from forq.errors import ConfigError, FormatError
from forq.formats import exportable
from forq.formats.codecs import gptq_write
from forq.layers.codes import BITS
from forq.layers.kernels.reference import dequantise
from forq.layers.round_to_nearest import round_to_nearest
from forq.layers.weight import QuantWeight
from forq.models.convert.layers import Linear, check_fit, gptq_misfit, kept_layers, levels_misfit, linear_layers
from forq.models.convert.levels import LevelsJob
from forq.models.convert.rewrite import Piece, rewrite, write_json
from forq.plugins import registry

TARGETS = ("gptq", "nf4", "fp4")
"""Formats a float checkpoint can be rounded to."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """The result of quantizing.

    Attributes:
        path: the new folder.
        layers: number of layers that were quantized.
        relative_error: squared error of the quantized weights, relative to their squared norm.
        kept: names of layers that the user kept in float.
    """

    path: Path
    layers: int
    relative_error: float
    kept: tuple[str, ...] = ()


def quantize(
    src: str | Path,
    out: str | Path,
    bits: int = 4,
    group_size: int = 64,
    sym: bool = True,
    checkpoint_format: str = "gptq",
    *,
    to: str = "gptq",
    keep: Sequence[str] = (),
    overwrite: bool = False,
) -> Quantized:
    """Round the linear layers of the blocks to nearest; embeddings, head and norms do not change.

    Each range is the one with the smallest squared error (see :mod:`forq.layers.round_to_nearest`);
    no data is used. Scales are stored as float16. All other files are copied.

    Args:
        src: a float checkpoint folder or hub id of a known family.
        out: folder to make.
        bits: bits of a code: 2, 3, 4 or 8.
        group_size: number of inputs that share a scale; −1 is a whole row.
        sym: whether every zero point is the middle of the codes.
        checkpoint_format: ``gptq`` (zero points are stored minus one) or ``gptq_v2``.
        to: ``gptq``, ``nf4`` or ``fp4``. The last two give the bytes that bitsandbytes gives; they
            have 4 bits and blocks of ``group_size`` values, and no other setting.
        keep: layers to keep in float: names, or the last parts of names; ``*`` matches any letters.
        overwrite: replace an existing folder.

    Raises:
        ConfigError: a layer (named) does not allow a setting, ``keep`` matches no layer, or ``out``
            exists.
        FormatError: the source is damaged or already quantized.
    """
    if to not in TARGETS:
        more = registry.nearest(to, TARGETS)
        if to.replace("_", "-") in exportable():
            more = f"; forq export --to {to} writes it from a quantized checkpoint"
        raise ConfigError(f"to: expected one of {', '.join(TARGETS)}, found {to!r}{more}")
    settings = {"bits": (bits, 4), "sym": (sym, True), "checkpoint_format": (checkpoint_format, "gptq")}
    own = [f"{name} {given}" for name, (given, default) in settings.items() if given != default]
    if to != "gptq" and own:
        raise ConfigError(f"to {to}: expected no setting but the group size, found {', '.join(own)}, which gptq takes")
    if bits not in BITS:
        raise ConfigError(f"bits: expected {', '.join(map(str, BITS))}, found {bits}")
    if group_size < 1 and group_size != -1:
        raise ConfigError(f"expected a positive group_size or -1, found {group_size}")
    ckpt = Checkpoint.open(src)
    if ckpt.config.get("quantization_config") is not None:
        raise FormatError(f"{ckpt.path}: expected a float checkpoint, found one that is quantized already: tune it")
    layers = linear_layers(ckpt)
    kept = kept_layers(layers, keep)
    chosen = {name: layer for name, layer in layers.items() if name not in kept}
    if not chosen:
        raise ConfigError("keep: expected some layers left to quantize, found all of them kept")
    job: _Job | LevelsJob
    if to != "gptq":
        if group_size < 2 or group_size % 2:
            raise ConfigError(f"group_size: expected an even block size for {to}, found {group_size}")
        check_fit(chosen, {name: levels_misfit(layer) for name, layer in chosen.items()})
        job = LevelsJob(ckpt, chosen, "nf4" if to == "nf4" else "fp4", group_size)
    else:
        check_fit(chosen, {name: gptq_misfit(layer, bits, group_size) for name, layer in chosen.items()})
        job = _Job(ckpt, chosen, bits, group_size, sym, checkpoint_format, kept)
    check_destination(ckpt.path, Path(out), overwrite)
    replace_folder(Path(out), job.write)
    modules = tuple(name.removesuffix(".weight") for name in kept)
    return Quantized(Path(out), len(chosen), job.error / max(job.energy, 1e-300), modules)


class _Job:
    """Writes a quantized folder and sums the squared error."""

    def __init__(
        self,
        ckpt: Checkpoint,
        chosen: Mapping[str, Linear],
        bits: int,
        group_size: int,
        sym: bool,
        form: str,
        kept: Sequence[str],
    ) -> None:
        self.ckpt = ckpt
        self.chosen = chosen
        self.bits = bits
        self.group_size = group_size
        self.sym = sym
        self.form = form
        self.kept = kept
        self.error = self.energy = 0.0

    def write(self, folder: Path) -> None:
        settings = gptq_write.quantization_config(self.bits, self.group_size, self.sym, checkpoint_format=self.form)
        if self.kept:
            chosen, kept = ([name.removesuffix(".weight") for name in names] for names in (self.chosen, self.kept))
            settings |= gptq_write.kept_in_float(chosen, kept)
        pieces = [Piece((name,), self._planned(name), partial(self._made, name)) for name in self.chosen]
        rewrite(self.ckpt, folder, pieces, self.ckpt.config | {"quantization_config": settings})
        write_json(folder / "quantize_config.json", settings)

    def _planned(self, name: str) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        rows, columns = self.chosen[name].rows, self.chosen[name].columns
        groups = columns // self._size(columns)
        module = name.removesuffix(".weight")
        return {
            f"{module}.qweight": (torch.int32, (columns * self.bits // 32, rows)),
            f"{module}.qzeros": (torch.int32, (groups, rows * self.bits // 32)),
            f"{module}.scales": (torch.float16, (groups, rows)),
            f"{module}.g_idx": (torch.int32, (columns,)),
        }

    def _made(self, name: str) -> dict[str, Tensor]:
        tensor, module = finite.check(name, self.ckpt.read(name)), name.removesuffix(".weight")
        if self.chosen[name].turned:
            tensor = tensor.t().contiguous()
        weight, scales = round_to_nearest(tensor, self._size(tensor.shape[1]), bits=self.bits, sym=self.sym)
        self._measure(tensor, weight, scales)
        packed = gptq_write.pack(weight, self.form) | {"scales": scales}
        return {f"{module}.{kind}": tensor for kind, tensor in packed.items()}

    def _size(self, columns: int) -> int:
        return columns if self.group_size == -1 else self.group_size

    def _measure(self, tensor: Tensor, weight: QuantWeight, scales: Tensor) -> None:
        exact = tensor.float()
        self.error += float((dequantise(weight, scales.float()) - exact).square_().sum())
        self.energy += float(exact.square().sum())
