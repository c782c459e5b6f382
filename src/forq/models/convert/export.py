"""Export a checkpoint to another format, keeping its integers and scales or writing floats, and measure the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from forq.checkpoints import Checkpoint
from forq.checkpoints.replace import check_destination, replace_folder
from forq.errors import ConfigError, FormatError
from forq.formats import ExportableFormat, Format, exportable
from forq.formats.base import Survey
from forq.layers.kernels.reference import dequantise, dequantise_rows
from forq.layers.layer import LayerSpec, Parts
from forq.layers.weight import QuantWeight
from forq.models import parts as layer_parts
from forq.models.convert.gguf import adapter as gguf_adapter
from forq.models.convert.gguf import export as gguf
from forq.models.convert.owners import left_in_float
from forq.models.convert.rewrite import Piece, planned, rewrite
from forq.models.convert.rotary import rotary_settings
from forq.models.layout import Layout
from forq.models.layout import layout as layout_of
from forq.models.skeleton import turned
from forq.plugins import registry

FLOATS: Mapping[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export, measured on the new folder.

    Attributes:
        layers: number of quantized layers that were written.
        weights: number of weights in these layers.
        changed: number of weights whose float32 value changed; 0 means that nothing was lost.
        max_change: largest |after − before| / |before|.
        notes: sentences for the user about the result.
    """

    path: Path
    layers: int
    weights: int
    changed: int
    max_change: float
    notes: tuple[str, ...] = ()


GGUF = "gguf"
LORA = "gguf-lora"
"""An adapter as a file for llama.cpp."""


def targets() -> tuple[str, ...]:
    """The targets of an export: formats that can pack integers and scales, GGUF files, and float dtypes."""
    return (*exportable(), GGUF, LORA, *FLOATS)


def export(
    source: str | Path, out: str | Path, to: str, *, adapter: str | Path | None = None, overwrite: bool = False
) -> Exported:
    """Write a quantized checkpoint in another format, and compare the result with the source.

    A target with integer codes keeps every code, zero point and scale exactly; a layer it cannot
    hold is refused, never approximated. Embeddings and heads become floats there, as loaders expect
    them. A float target rounds every weight once. A GGUF file holds each layer in the smallest type
    that keeps its weights, and rounds scales that are no float16.

    Args:
        source: a folder, a file or a hub id.
        out: folder to make.
        to: one of :func:`targets`.
        adapter: folder of a LoRA adapter in PEFT's format, beside ``source``; for ``gguf-lora``, which writes it.

    Raises:
        ConfigError: the target is unknown, or ``out`` exists.
        FormatError: the source has no quantized layer, or the target cannot hold a layer (named).
    """
    known = targets()
    to = to.replace("_", "-")
    if to not in known:
        raise ConfigError(f"to: expected one of {', '.join(known)}, found {to!r}{registry.nearest(to, known)}")
    if (to == LORA) != (adapter is not None):
        raise ConfigError(
            f"to {LORA}: expected a run that moved adapters, or --adapter FOLDER, found none; --to {GGUF} writes a "
            "checkpoint"
            if to == LORA
            else f"adapter: expected --to {LORA}, found --to {to}; merge the adapter into its base with PEFT first"
        )
    ckpt = Checkpoint.open(source)
    if adapter is not None:
        return _adapter(ckpt, Path(adapter), Path(out), overwrite)
    if ckpt.graph is not None:
        raise FormatError(f"{ckpt.path}: expected tensors of a transformers model to export, found an ONNX graph")
    layout = layout_of(ckpt)
    if layout.form is None or not layout.specs:
        raise FormatError(
            f"{ckpt.path}: expected quantized layers to export, found floats alone; forq quantize makes some"
        )
    check_destination(ckpt.path, Path(out), overwrite)
    if to == GGUF:
        return _as_gguf(ckpt, layout, Path(out))
    config = {key: value for key, value in ckpt.config.items() if key != "quantization_config"}
    config |= rotary_settings(ckpt)
    dtype = "dtype" if "dtype" in config else "torch_dtype"
    plain: dict[str, LayerSpec] = {}
    turn: Turn | None = None  # everything becomes floats
    if to in FLOATS:
        config[dtype] = to
        floats = FLOATS[to]
    else:
        plain, floats = _ends(layout), FLOATS.get(str(config.get(dtype)), torch.float16)
        codes = {name: spec for name, spec in layout.specs.items() if name not in plain}
        target, survey = exportable()[to], _survey(ckpt, layout, codes)
        turn = _as_codes(target, survey)
        config["quantization_config"] = _settings(ckpt, codes.values(), target, survey)
    pieces = [
        _piece(
            ckpt,
            layout.form,
            spec,
            _as_floats(floats, _turned(layout, spec)) if turn is None or name in plain else turn,
        )
        for name, spec in layout.specs.items()
    ]
    # What config.json says of them now.
    pieces += [Piece((name,), {}, dict) for name in ckpt.info if name == ckpt.contents.values.get("rope_factors")]
    notes = tuple(f"{name} is written in floats: loaders of {to} expect an embedding or a head so" for name in plain)
    done: list[Exported] = []

    def fill(folder: Path) -> None:
        rewrite(ckpt, folder, pieces, config)
        done.append(
            _compared(ckpt, layout, folder)
        )  # before the folder gets its name, so that a damaged one never does

    replace_folder(Path(out), fill)
    return replace(done[0], path=Path(out), notes=notes)


def _as_gguf(ckpt: Checkpoint, layout: Layout, out: Path) -> Exported:
    gguf.check(ckpt, out)
    done: list[Exported] = []

    def fill(folder: Path) -> None:
        notes = gguf.write_model(ckpt, layout, folder)
        done.append(replace(_compared(ckpt, layout, folder), notes=notes))

    replace_folder(out, fill)
    return replace(done[0], path=out)


def _adapter(ckpt: Checkpoint, folder: Path, out: Path, overwrite: bool) -> Exported:
    gguf.check_out(out, gguf_adapter.FILE)
    check_destination(ckpt.path, out, overwrite)
    check_destination(folder, out, overwrite)
    done: list[gguf_adapter.Written] = []
    replace_folder(out, lambda fresh: done.append(gguf_adapter.write_adapter(ckpt, folder, fresh)))
    found = done[0]
    # B is rounded to float32 where it is multiplied.
    most = 2.0**-24 if found.changed else 0.0
    return Exported(out, found.layers, found.weights, found.changed, most, found.notes)


Turn = Callable[[Parts], Mapping[str, Tensor]]
"""Makes the tensors of the target from a layer, by the last part of their names."""


def _piece(ckpt: Checkpoint, form: Format, spec: LayerSpec, turn: Turn) -> Piece:
    def made() -> dict[str, Tensor]:
        parts = layer_parts.read(form, ckpt, spec)
        try:
            tensors = dict(turn(parts))
        except FormatError as error:
            raise FormatError(f"{spec.name}: {error}") from None
        if parts.bias is not None:
            tensors["bias"] = parts.bias
        return {f"{spec.name}.{kind}": tensor.contiguous() for kind, tensor in tensors.items()}

    # Each layer is made twice: offsets in a file must be known before its bytes, and no layer stays in memory.
    return Piece(spec.tensors, planned(made()), made)


def _as_floats(dtype: torch.dtype, turned: bool) -> Turn:
    """Makes floats; (in, out) instead of (out, in) if ``turned``."""

    def turn(parts: Parts) -> Mapping[str, Tensor]:
        weight = _matrix(parts).to(dtype)
        if not bool(torch.isfinite(weight).all()):
            raise FormatError(f"expected weights that fit {dtype}, found larger ones; export to float32")
        return {"weight": weight.t() if turned else weight}

    return turn


def _turned(layout: Layout, spec: LayerSpec) -> bool:
    """Whether the layer's class holds floats as (in, out): GPT-2's Conv1D."""
    return turned(layout.model.get_submodule(layout.names.modules[spec.name]))


def _as_codes(target: ExportableFormat, survey: Survey) -> Turn:
    def turn(parts: Parts) -> Mapping[str, Tensor]:
        weight = parts.weight
        if not isinstance(weight, QuantWeight) or weight.levels is not None or weight.zeros.is_floating_point():
            raise FormatError(
                "expected codes with a scale and an integer zero point for each group, found others, which "
                f"{target.about.title} cannot hold; export to float16"
            )
        return {**target.pack(weight, survey), **target.pack_scales(parts.arrange(parts.live[0]))}

    return turn


def _matrix(parts: Parts) -> Tensor:
    weight, live = parts.weight, tuple(tensor.float() for tensor in parts.live)
    if not isinstance(weight, QuantWeight):
        return dequantise_rows(weight, live)  # type: ignore[arg-type]
    if weight.zeros.is_floating_point():  # continuous zero points are the second live tensor
        weight = replace(weight, zeros=parts.arrange(live[1]))
    return dequantise(weight, parts.arrange(live[0]))


def _ends(layout: Layout) -> dict[str, LayerSpec]:
    """The quantized embeddings, and the quantized head."""
    head_of = getattr(layout.model, "get_output_embeddings", lambda: None)
    modules = {name: layout.model.get_submodule(layout.names.modules[name]) for name in layout.specs}
    return {
        name: layout.specs[name]
        for name, module in modules.items()
        if isinstance(module, nn.Embedding) or module is head_of()
    }


def _survey(ckpt: Checkpoint, layout: Layout, specs: Mapping[str, LayerSpec]) -> Survey:
    """What the target has to know of the layers that are written in integers."""
    assert layout.form is not None
    if not specs:
        raise FormatError(f"{ckpt.path}: expected quantized layers beside embeddings and head, found none")
    least, symmetric, reordered = 0, True, False
    for place, spec in enumerate(specs.values()):
        weight = layout.form.read(ckpt, spec).weight
        if isinstance(weight, QuantWeight):
            here = int(weight.zeros.min())
            least = here if place == 0 else min(least, here)
            symmetric = symmetric and weight.zero == 1 << spec.bits - 1
            reordered = reordered or weight.group_of is not None
    written = [layout.names.modules[name] for name in specs]
    left = sorted(left_in_float(ckpt.config, written))
    return Survey(least, symmetric, reordered, tuple(written), tuple(left))


def _settings(
    ckpt: Checkpoint, specs: Iterable[LayerSpec], target: ExportableFormat, survey: Survey
) -> dict[str, object]:
    """The target's configuration; its loaders expect that all layers share their bits and group."""
    kinds = {(spec.bits, -1 if spec.group_size == spec.in_features else spec.group_size) for spec in specs}
    # If other layers give a group size, a layer whose group is a whole row counts as having that size too.
    groups = {group for _, group in kinds if group != -1} or {-1}
    bits = {bits for bits, _ in kinds}
    if len(bits) > 1 or len(groups) > 1:
        raise FormatError(
            f"{ckpt.path}: expected the same bits and group size in all layers, found {sorted(kinds)}; "
            "export to float16"
        )
    return target.quantization_config(bits.pop(), groups.pop(), survey)


def _compared(ckpt: Checkpoint, layout: Layout, out: Path) -> Exported:
    """Every layer's matrix as the new folder has it, beside what it was."""
    assert layout.form is not None
    written = Checkpoint.open(out)
    target = layout_of(written)
    weights = changed = 0
    worst = 0.0
    for spec in layout.specs.values():
        before = _matrix(layout.form.read(ckpt, spec))
        # A GGUF file has the model's own names; another folder keeps those of the source.
        there = spec.name if spec.name in target.specs else layout.names.modules[spec.name]
        if target.form is None or there not in target.specs:
            after = written.read(f"{spec.name}.weight").float()
            after = after.t() if _turned(layout, spec) else after
        else:
            after = _matrix(target.form.read(written, target.specs[there]))
        weights += before.numel()
        differs = after != before
        if bool(differs.any()):
            changed += int(torch.count_nonzero(differs))
            old = before[differs]
            worst = max(worst, float(((after[differs] - old).abs() / old.abs().clamp(min=1e-30)).max()))
    return Exported(out, len(layout.specs), weights, changed, worst)
