"""Which version of GPTQ wrote a checkpoint: version 1 stores zero points less one, version 2 as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from forq.checkpoints import Checkpoint
from forq.formats.codecs.gptq_settings import ZERO_OFFSETS, settings, versions_note
from forq.formats.codecs.gptq_specs import layer_specs
from forq.formats.codecs.gptq_words import pack_zeros
from forq.layers.weight import zeros_dtype


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
        return ZERO_OFFSETS[self.form]


def version(ckpt: Checkpoint) -> Version:
    """Which version of the format wrote the zero points.

    Where zero points may be any number, the configuration decides. Under ``sym`` they may not: all are 2^(bits − 1).
    If that holds for every layer under the other version only, then the other version wrote the file. The fast
    kernels of gptqmodel agree (under ``sym`` they never read zero points); its plain kernels follow the configuration.
    If neither version gives 2^(bits − 1) throughout (zero points of a symmetric file that were tuned, for example),
    the configuration decides.
    """
    return ckpt.once(_version)


def _version(ckpt: Checkpoint) -> Version:
    how = settings(ckpt)
    if how.sym is False:
        return Version(how.declared, versions_note(ckpt))
    middle, possible = 1 << how.bits - 1, _symmetric_versions(ckpt)
    if how.declared in possible or (not possible and how.sym is None):
        return Version(how.declared, versions_note(ckpt))
    declared = f"quantization_config says {how.key} {how.declared!r}{' and sym' if how.sym else ''}"
    if not possible:
        return Version(
            how.declared,
            f"{declared}, but zero points other than {middle} are stored. forq reads them as {how.declared} stores "
            "them; kernels that never read zero points of a symmetric file (Marlin, for example) compute something "
            "else.",
        )
    (other,) = possible
    return Version(
        other,
        f"{declared}, but read that way the zero points are not {middle}, which a symmetric file's are. Read as "
        f"{other} every zero point is {middle}, so forq reads this file as {other}.",
    )


def _symmetric_versions(ckpt: Checkpoint) -> set[str]:
    """The versions under which every zero point of the checkpoint is 2^(bits − 1)."""
    possible = set(ZERO_OFFSETS)
    for name, spec in layer_specs(ckpt).items():
        stored = ckpt.read(f"{name}.qzeros")
        row = torch.full((1, spec.out_features), 1 << spec.bits - 1, dtype=zeros_dtype(spec.bits))
        possible = {form for form in possible if bool((stored == pack_zeros(row, ZERO_OFFSETS[form], spec.bits)).all())}
        if not possible:
            break
    return possible
