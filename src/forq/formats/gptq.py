"""GPTQ: int32 words of packed codes, one float scale per group of inputs and output.

    qweight  int32 (in·bits/32, out)      packed along in, lowest input in the lowest bits
    qzeros   int32 (groups, out·bits/32)  packed along out; format v1 stores zero − 1
    scales   float (groups, out)
    g_idx    int32 (in,)                  group of every input; k // group_size unless act-order was on

Under ``sym`` every zero point is 2^(bits − 1), so the tensors themselves show which version wrote them: see
:func:`version`. Settings stand in config.json under ``quantization_config``, or in quantize_config.json (older files).
Layout as written by AutoGPTQ and GPTQModel; the latter's ``convert_gptq_v1_to_v2_format`` has both conventions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import regex
import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.checkpoint import read_json
from forq.errors import FormatError
from forq.formats import _tiny
from forq.formats._about import About
from forq.formats.codecs.gptq_words import pack_codes, pack_zeros, unpack_codes, unpack_zeros
from forq.layers.codes import BITS
from forq.layers.codes import pack as codes_in_bytes
from forq.layers.layer import FiledCodes, LayerSpec, Live, Parts, ZeroPoints
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype

ABOUT = About(
    title="GPTQ",
    bits="2, 3, 4, 8",
    moves=("scales", "codes", "zeros"),
    exported="the same file; scales are rounded to its dtype (float16: about a fifth of a step of 1e-3)",
    library="gptqmodel 7.6.0",
    layout=(
        "qweight  int32 (in·bits/32, out), packed along in",
        "qzeros   int32 (groups, out·bits/32); v1 stores zero − 1",
        "scales   float16, bfloat16 or float32 (groups, out)",
        "g_idx    int32 (in,), act-order",
    ),
    zero_points=(
        "Under sym all of them are 2^(bits − 1). Where that holds for the version that checkpoint_format does not "
        "name, and not for the one it names, forq reads the other one and says so. Otherwise checkpoint_format decides."
    ),
)

_ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}
_KEPT = "-:"
"""What a rule of ``dynamic`` begins with that leaves layers in float."""
_REGEX_TIMEOUT_S = 1.0
_OTHER = {"gptq": "gptq_v2", "gptq_v2": "gptq"}
_SCALE_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_WORD_BITS = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of a GPTQ configuration that says how the tensors are to be read.

    Attributes:
        group_size: inputs that share a scale; −1 is a whole row.
        declared: the format the configuration names, ``gptq`` (version 1) or ``gptq_v2``.
        sym: whether it says that all zero points are 2^(bits − 1); None where it says nothing.
    """

    bits: int
    group_size: int
    declared: str
    sym: bool | None


@dataclass(frozen=True, slots=True)
class Version:
    """How the stored zero points are read.

    Attributes:
        form: ``gptq`` or ``gptq_v2``.
        why: a sentence for users where the tensors contradict the configuration, else "".
    """

    form: str
    why: str = ""

    @property
    def zero_offset(self) -> int:
        """What is added to a stored zero point."""
        return _ZERO_OFFSETS[self.form]


def recognise(ckpt: Checkpoint) -> bool:
    """Does the checkpoint hold int32 (qweight, qzeros) pairs packed along the inputs?"""
    for name, info in ckpt.info.items():
        module, _, kind = name.rpartition(".")
        zeros, scales = ckpt.info.get(f"{module}.qzeros"), ckpt.info.get(f"{module}.scales")
        if kind != "qweight" or zeros is None or scales is None or info.dtype != torch.int32:
            continue
        # AWQ uses the same names; it packs along the outputs, so that its qweight is as wide as its qzeros.
        packed_along_inputs = len(info.shape) == 2 and info.shape[-1:] == scales.shape[-1:]
        return packed_along_inputs and _settings_dict(ckpt).get("quant_method", "gptq") == "gptq"
    return False


def settings(ckpt: Checkpoint) -> Settings:
    """How the tensors are to be read.

    Raises:
        FormatError: a setting is missing, impossible or not supported.
    """
    raw = _settings_dict(ckpt)
    where = f"{ckpt.path}: quantization_config"
    bits, group_size = raw.get("bits"), raw.get("group_size")
    if type(bits) is not int or type(group_size) is not int:
        raise FormatError(f"{where}: expected whole numbers for bits and group_size, found {bits!r}, {group_size!r}")
    if bits not in BITS:
        raise FormatError(f"{where}: expected {', '.join(map(str, BITS))} bits, found {bits}")
    if group_size < 1 and group_size != -1:
        raise FormatError(f"{where}: expected a positive group_size or -1, found {group_size}")
    form = raw.get("checkpoint_format") or "gptq"
    if not isinstance(form, str) or form not in _ZERO_OFFSETS:
        raise FormatError(
            f"{where}: expected checkpoint_format among {', '.join(_ZERO_OFFSETS)}, found {form!r}; "
            "the checkpoint is repacked for another kernel: load the original one"
        )
    dynamic = raw.get("dynamic")
    # A rule that begins with a minus leaves layers in float, which the tensors show too.
    if dynamic and not (isinstance(dynamic, dict) and all(rule.startswith(_KEPT) for rule in dynamic)):
        raise FormatError(f"{where}: expected one setting for all layers, found 'dynamic', which is not supported yet")
    sym = raw.get("sym")
    if sym is not None and type(sym) is not bool:
        raise FormatError(f"{where}: expected sym to be true or false, found {sym!r}")
    return Settings(bits, group_size, form, sym)


def version(ckpt: Checkpoint) -> Version:
    """Which version of the format wrote the zero points.

    The configuration says, and decides wherever zero points may be any number. Under ``sym`` they may not: all are
    2^(bits − 1). Where that holds for every layer under the other version alone, the other one wrote the file.
    gptqmodel's fast kernels agree (under ``sym`` they never read zero points); its plain ones follow the configuration.
    Where neither version gives 2^(bits − 1) throughout (zero points of a symmetric file that were tuned, for example)
    the configuration is followed.
    """
    return ckpt.once(_version)


def unlike(ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """Whether the zero points contradict the configuration, and how they are read."""
    why = version(ckpt).why
    return (why,) if why else ()


def layers(ckpt: Checkpoint) -> dict[str, LayerSpec]:
    """The quantized layers by module name, checked from the headers alone.

    Raises:
        FormatError: tensors are missing, or contradict each other or the settings.
    """
    how = settings(ckpt)
    modules = sorted(name.removesuffix(".qweight") for name in ckpt.info if name.endswith(".qweight"))
    _check_kept(ckpt, modules)
    return {module: _spec(ckpt, module, how) for module in modules}


def _check_kept(ckpt: Checkpoint, modules: Sequence[str]) -> None:
    """Refuse rules of ``dynamic`` that leave a layer in float which the file holds in integers."""
    where = f"{ckpt.path}: quantization_config: dynamic"
    for rule in _settings_dict(ckpt).get("dynamic") or ():
        for module in modules:
            try:
                # The file chooses the expression, so its time is bounded.
                matches = regex.match(rule.removeprefix(_KEPT), module, timeout=_REGEX_TIMEOUT_S)
            except (regex.error, TimeoutError) as error:
                raise FormatError(f"{where}: the rule {rule!r:.80} cannot be used: {error}") from error
            if matches:
                raise FormatError(f"{where}: the rule {rule!r:.80} leaves {module} in float, found it in integers")


def read(ckpt: Checkpoint, spec: LayerSpec) -> Parts:
    """Integers, scales and bias of one layer; no float copy of the weights is made.

    Raises:
        FormatError: g_idx names a group that does not exist.
    """
    name = spec.name
    codes = unpack_codes(ckpt.read(f"{name}.qweight"), spec.bits)
    zeros = unpack_zeros(ckpt.read(f"{name}.qzeros"), version(ckpt).zero_offset, spec.bits)
    group_of = _group_of(ckpt, spec)
    weight = QuantWeight(codes, zeros, spec.bits, spec.group_size, group_of)
    bias = None if spec.bias is None else ckpt.read(spec.bias)
    return Parts(weight, (ckpt.read(spec.live[0].name),), bias)


def zero_points(ckpt: Checkpoint, spec: LayerSpec) -> ZeroPoints:
    """How a layer's zero points are packed. Where v1 stores a zero less one the smallest that is written alone is 1."""
    offset, top = version(ckpt).zero_offset, (1 << spec.bits) - 1

    def packed(x: Tensor) -> Tensor:
        return pack_zeros(x.to(zeros_dtype(spec.bits)), offset, spec.bits)

    return ZeroPoints(f"{spec.name}.qzeros", (offset, top), torch.int32, packed)


def filed_codes(ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
    """How a layer's codes are packed."""
    return FiledCodes(f"{spec.name}.qweight", torch.int32, spec.shape, spec.bits, partial(pack_codes, bits=spec.bits))


def pack(weight: QuantWeight, checkpoint_format: str = "gptq") -> dict[str, Tensor]:
    """The tensors GPTQ stores for a layer beside its scales and bias: qweight, qzeros, g_idx.

    Raises:
        FormatError: inputs or outputs do not fill 32-bit words, or the format is unknown.
    """
    if checkpoint_format not in _ZERO_OFFSETS:
        raise FormatError(f"expected checkpoint_format among {', '.join(_ZERO_OFFSETS)}, found {checkpoint_format!r}")
    step = multiple(weight.bits)
    if weight.in_features % step or weight.out_features % step:
        raise FormatError(
            f"expected inputs and outputs in multiples of {step} for GPTQ's 32-bit words at {weight.bits} bits, found "
            f"{weight.in_features} and {weight.out_features}; leave this layer in float"
        )
    plain = torch.arange(weight.in_features, dtype=torch.int32) // weight.group_size
    return {
        "qweight": pack_codes(weight.codes, weight.bits),
        "qzeros": pack_zeros(weight.zeros, _ZERO_OFFSETS[checkpoint_format], weight.bits),
        "g_idx": plain if weight.group_of is None else weight.group_of,
    }


def dialect(least_zero: int, middle: bool) -> dict[str, Any]:
    """What an export tells :func:`pack`: version 1 stores zero points less one, and cannot say 0."""
    return {"checkpoint_format": "gptq" if least_zero > 0 else "gptq_v2"}


def pack_scales(scales: Tensor) -> dict[str, Tensor]:
    """The scales (groups, out) as the file holds them."""
    return {"scales": scales}


def quantization_config(
    bits: int, group_size: int, sym: bool = True, left: Sequence[str] = (), checkpoint_format: str = "gptq"
) -> dict[str, Any]:
    """What config.json says of a checkpoint whose layers :func:`pack` made.

    Args:
        group_size: inputs that share a scale; −1 is a whole row.
        sym: whether all zero points are the middle.
        left: names of linear layers that stay in float; GPTQ's loaders see them by their tensors.
    """
    how = {"quant_method": "gptq", "bits": bits, "group_size": group_size, "sym": sym, "desc_act": False}
    return how | {"checkpoint_format": checkpoint_format}


def kept_in_float(quantized: Sequence[str], kept: Sequence[str]) -> dict[str, Any]:
    """What config.json says besides where single layers of the blocks stay in float, for both loaders.

    gptqmodel and vLLM read ``dynamic``, whose rules with a minus leave layers alone; transformers, through optimum,
    reads the ends of the names that *are* quantized.
    """
    rules: dict[str, dict[str, Any]] = {f"{_KEPT}^{re.escape(name)}$": {} for name in kept}
    return {"dynamic": rules, "modules_in_block_to_quantize": [list(quantized)]}


def multiple(bits: int) -> int:
    """Inputs and outputs come in multiples of this: they fill 32-bit words, three at a time at 3 bits."""
    return 32 if bits == 3 else 32 // bits


def _version(ckpt: Checkpoint) -> Version:
    how, middle = settings(ckpt), 1 << settings(ckpt).bits - 1
    if how.sym is False:
        return Version(how.declared)
    possible = {how.declared, _OTHER[how.declared]}
    for name, spec in layers(ckpt).items():
        stored = ckpt.read(f"{name}.qzeros")
        row = torch.full((1, spec.out_features), middle, dtype=zeros_dtype(spec.bits))
        for form in tuple(possible):
            if not bool((stored == pack_zeros(row, _ZERO_OFFSETS[form], spec.bits)).all()):
                possible.discard(form)
        if not possible:
            break
    if how.declared in possible or (not possible and how.sym is None):
        return Version(how.declared)
    said = f"quantization_config says checkpoint_format {how.declared!r}{' and sym' if how.sym else ''}"
    if not possible:
        return Version(
            how.declared,
            f"{said}, but zero points other than {middle} are stored. forq reads them as {how.declared} stores them; "
            "kernels that never read zero points of a symmetric file (Marlin, for example) compute something else.",
        )
    other = possible.pop()
    return Version(
        other,
        f"{said}, but read that way the zero points are not {middle}, which a symmetric file's are. Read as {other} "
        f"every zero point is {middle}, so forq reads this file as {other}.",
    )


def _settings_dict(ckpt: Checkpoint) -> dict[str, Any]:
    found = ckpt.config.get("quantization_config")
    if isinstance(found, dict):
        return found
    older = ckpt.folder / "quantize_config.json"
    return read_json(older) if older.is_file() else {}


def _spec(ckpt: Checkpoint, module: str, how: Settings) -> LayerSpec:
    def expect(kind: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = (torch.int32,)) -> torch.dtype:
        info = ckpt.info.get(f"{module}.{kind}")
        if info is None:
            raise FormatError(f"{module}: expected a tensor {kind!r} beside qweight, found none; the file is damaged")
        if info.shape != shape or info.dtype not in dtypes:
            raise FormatError(
                f"{module}.{kind}: expected {' or '.join(map(str, dtypes))} of shape {shape} for {how.bits} "
                f"bits and group_size {how.group_size}, found {info.dtype} of shape {info.shape}; the "
                "configuration contradicts the tensors: use the quantization_config this file was made with"
            )
        return info.dtype

    packed = ckpt.info[f"{module}.qweight"].shape
    if len(packed) != 2 or 0 in packed:
        raise FormatError(f"{module}.qweight: expected a matrix, found shape {packed}")
    columns, rows = packed[0] * _WORD_BITS // how.bits, packed[1]
    if columns % multiple(how.bits) or rows % multiple(how.bits):
        raise FormatError(
            f"{module}: expected a multiple of {multiple(how.bits)} inputs and outputs at {how.bits} bits, found "
            f"{columns} and {rows}"
        )
    group_size = columns if how.group_size == -1 else min(how.group_size, columns)
    groups = -(-columns // group_size)
    expect("qweight", packed)
    expect("qzeros", (groups, rows * how.bits // _WORD_BITS))
    dtype = expect("scales", (groups, rows), _SCALE_DTYPES)
    kinds = ["qweight", "qzeros", "scales"]
    if f"{module}.g_idx" in ckpt.info:
        expect("g_idx", (columns,))
        kinds.append("g_idx")
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        expect("bias", (rows,), _SCALE_DTYPES)
        kinds.append("bias")
    tensors = tuple(f"{module}.{kind}" for kind in kinds)
    scales = Live(f"{module}.scales", dtype, out_axis=1)
    return LayerSpec(module, columns, rows, how.bits, group_size, (scales,), bias, tensors, f"{module}.qzeros")


def _group_of(ckpt: Checkpoint, spec: LayerSpec) -> Tensor | None:
    """The file's g_idx where it says more than consecutive groups do, else None."""
    name = f"{spec.name}.g_idx"
    if name not in spec.tensors:
        return None
    group_of = ckpt.read(name)
    groups = -(-spec.in_features // spec.group_size)
    if int(group_of.min()) < 0 or int(group_of.max()) >= groups:
        raise FormatError(
            f"{name}: expected groups 0 … {groups - 1}, found {int(group_of.min())} … {int(group_of.max())}"
        )
    plain = torch.arange(spec.in_features, dtype=torch.int32) // spec.group_size
    return None if torch.equal(group_of, plain) else group_of


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "2-bit": {"bits": 2},
    "3-bit": {"bits": 3},
    "8-bit": {"bits": 8, "checkpoint_format": "gptq_v2"},
    "act-order": {"desc_act": True},
    "row": {"group_size": -1},
    "ragged": {"bits": 8, "group_size": 24},
}
"""Other shapes of the format, as changes of the example's settings."""


def example(folder: Path, **changes: Any) -> Path:
    """A tiny valid checkpoint: a Llama of one block with random codes, zeros and scales.

    Args:
        changes: of the settings, see :data:`VARIANTS`.

    Returns:
        ``folder``, which is made.
    """
    how = {"quant_method": "gptq", "bits": 4, "group_size": _tiny.GROUP_SIZE, "sym": False, "desc_act": False}
    how |= {"checkpoint_format": "gptq", **changes}
    bits = int(str(how["bits"]))

    def quantized(module: str, rows: int, columns: int) -> dict[str, Tensor]:
        draw = _tiny.generator(module)
        if rows % multiple(bits) or columns % multiple(bits):  # stays in float
            return {f"{module}.weight": (torch.randn(rows, columns, generator=draw) * 0.1).to(torch.float16)}
        size = columns if how["group_size"] == -1 else int(str(how["group_size"]))
        groups = -(-columns // size)
        codes = torch.randint(0, 1 << bits, (rows, columns), dtype=torch.uint8, generator=draw)
        zeros = torch.randint(1, 1 << bits, (groups, rows), dtype=zeros_dtype(bits), generator=draw)
        scales = (torch.rand(groups, rows, generator=draw) * 0.05 + 0.01) * 16 / (1 << bits)
        plain = torch.arange(columns, dtype=torch.int32) // size
        group_of = plain[torch.randperm(columns, generator=draw)] if how["desc_act"] else None
        weight = QuantWeight(codes_in_bytes(codes, bits), zeros, bits, size, group_of)
        packed = pack(weight, str(how["checkpoint_format"]))
        return {f"{module}.{kind}": tensor for kind, tensor in packed.items()} | {
            f"{module}.scales": scales.to(torch.float16)
        }

    return _tiny.write(folder, quantized, {"quantization_config": how})
