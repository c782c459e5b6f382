"""The groups of a GPTQ layer's inputs: g_idx, or consecutive inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.codecs.gptq_settings import raw_settings
from forq.formats.codecs.gptq_specs import layer_specs
from forq.layers.layer import LayerSpec


def group_of(ckpt: Checkpoint, spec: LayerSpec) -> Tensor | None:
    """The group of every input, int32 (in,); None where groups are consecutive inputs.

    A g_idx of zeros in a layer of several groups was never filled: exllama's kernels and TGI take it for none.

    Raises:
        FormatError: g_idx names a group that does not exist.
    """
    stored = _stored(ckpt, spec)
    return None if stored is None or _unfilled(stored, spec) else stored


def unlike(ckpt: Checkpoint) -> tuple[str, ...]:
    """Sentences on layers whose g_idx says something else than the configuration, and on how they are read."""
    return ckpt.once(_unlike)


def _unlike(ckpt: Checkpoint) -> tuple[str, ...]:
    unfilled, ordered = list[str](), list[str]()
    for name, spec in layer_specs(ckpt).items():
        if (stored := _stored(ckpt, spec)) is not None:
            (unfilled if _unfilled(stored, spec) else ordered).append(name)
    found = []
    if unfilled:
        found.append(
            f"g_idx of {_some(unfilled)} holds zeros alone although there are several groups; forq takes the groups to "
            "be consecutive inputs, as exllama's kernels do; kernels that follow g_idx use the first group for every "
            "input"
        )
    if ordered and raw_settings(ckpt).get("desc_act") is False:
        found.append(
            f"quantization_config says desc_act false, but g_idx of {_some(ordered)} is in another order than the "
            "inputs; forq follows g_idx, as gptqmodel does; vLLM does not read it"
        )
    return tuple(found)


def _stored(ckpt: Checkpoint, spec: LayerSpec) -> Tensor | None:
    """The file's g_idx where it is not that of consecutive groups, else None."""
    name = f"{spec.name}.g_idx"
    if name not in spec.tensors:
        return None
    stored = ckpt.read(name)
    groups = _groups(spec)
    if int(stored.min()) < 0 or int(stored.max()) >= groups:
        raise FormatError(f"{name}: expected groups 0 … {groups - 1}, found {int(stored.min())} … {int(stored.max())}")
    plain = torch.arange(spec.in_features, dtype=torch.int32) // spec.group_size
    return None if torch.equal(stored, plain) else stored


def _unfilled(stored: Tensor, spec: LayerSpec) -> bool:
    return _groups(spec) > 1 and not bool(stored.any())


def _groups(spec: LayerSpec) -> int:
    return -(-spec.in_features // spec.group_size)


def _some(layers: list[str]) -> str:
    return layers[0] + (f" and {len(layers) - 1} more layers" if len(layers) > 1 else "")
