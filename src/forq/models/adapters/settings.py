"""adapter_config.json of PEFT: which of its settings change numbers, and what forq makes of each.

The scale of an adapter's product is α/r, or α/√r with ``use_rslora``, where ``rank_pattern`` and ``alpha_pattern`` may
give single layers an r and an α of their own. Which layers carry an adapter is read from the tensors: PEFT too leaves a
targeted layer alone whose factors are missing. Every other setting that changes the result is refused by its name.
Fields as of PEFT 0.21.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forq.checkpoints.checkpoint import read_json
from forq.errors import FormatError

CONFIG = "adapter_config.json"

_HONOURED = {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"}

_NO_EFFECT = {
    # where the adapter came from
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    # which layers were given an adapter: the tensors show it
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    # training alone
    *("lora_dropout", "runtime_config"),
    # how the factors began, where init_lora_weights asks for it
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    # the way a base matrix lies in memory when an adapter is merged into it
    *("fan_in_fan_out", "megatron_core"),
    # read only where use_qalora is set
    "qalora_group_size",
}
"""Settings that do not change what a saved adapter adds to a layer, whatever their value."""

_REFUSED = {
    "bias": "trained biases of the base layers",
    "use_dora": "a direction and a magnitude of its own for every weight",
    "modules_to_save": "whole layers trained beside the adapter",
    "layer_replication": "layers of the base used several times",
    "lora_bias": "a bias of the adapter itself",
    "megatron_config": "layers of Megatron",
    "target_parameters": "adapters of single parameters, such as a mixture's experts",
    "trainable_token_indices": "trained rows of the embedding",
    "use_qalora": "inputs averaged by group in front of the adapter",
    "use_bdlora": "block-diagonal factors",
    "arrow_config": "a choice among several adapters at every token",
    "kasa_config": "a base without its smallest singular values",
    "monteclora_config": "factors drawn at random around their mean",
    "velora_config": "compressed activations",
    "alora_invocation_tokens": "an adapter that begins at a certain token",
    "ensure_weight_tying": "an adapter shared by tied layers",
}
"""Settings that change the result and that forq does not compute, and what each of them means."""

AT_REST = (None, False, "", "none")
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga", "lora-ga", "loftq")
_NAME = re.compile(r"[A-Za-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What an adapter's configuration says of the numbers.

    Attributes:
        rank, alpha: of layers that no pattern names.
        ranks, alphas: of layers by their name, or by the end of their name after a dot; the first that fits counts.
        stabilised: the product is scaled by α/√r in place of α/r.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    stabilised: bool

    def rank_of(self, module: str) -> int:
        """Rank of a layer's adapter."""
        return int(_first(self.ranks, module, self.rank))

    def alpha_of(self, module: str) -> float:
        """α of a layer's adapter, such that its product is scaled by α/r."""
        alpha, rank = float(_first(self.alphas, module, self.alpha)), self.rank_of(module)
        return alpha / math.sqrt(rank) * rank if self.stabilised else alpha


def read(path: Path) -> AdapterSettings:
    """The settings of an adapter, from its ``adapter_config.json``.

    Raises:
        FormatError: it is no plain LoRA, or a setting changes the result in a way forq does not compute (named).
    """
    return checked(str(path), read_json(path))


def checked(path: str, found: Mapping[str, object]) -> AdapterSettings:
    """The settings in the fields of a configuration, which ``path`` names in errors.

    Raises:
        FormatError: see :func:`read`.
    """
    alpha = found.get("lora_alpha")
    rank = found.get("r")
    if not (
        found.get("peft_type") == "LORA"
        and (isinstance(rank, int) and rank > 0)
        and (isinstance(alpha, int | float) and math.isfinite(alpha))
    ):
        raise FormatError(
            f"{path}: expected peft_type 'LORA' with r and lora_alpha, found {found.get('peft_type')!r:.80} with "
            f"{rank!r:.80} and {alpha!r:.80}"
        )
    _check_start(path, found.get("init_lora_weights", True))
    for key, value in found.items():
        if key in _HONOURED or key in _NO_EFFECT or value in AT_REST or value in ([], {}):
            continue
        why = f" ({_REFUSED[key]})" if key in _REFUSED else ", a setting forq does not know"
        raise FormatError(
            f"{path}: expected {key} to be off, found {value!r:.80}{why}; without it the adapter would give other "
            "numbers than PEFT's: use a plain LoRA adapter, or merge this one into its base with PEFT"
        )
    stabilised = found.get("use_rslora") or False
    if type(stabilised) is not bool:
        raise FormatError(f"{path}: expected use_rslora to be true or false, found {stabilised!r:.80}")
    ranks, alphas = (_pattern(path, key, found.get(key)) for key in ("rank_pattern", "alpha_pattern"))
    whole = {name: value for name, value in ranks.items() if isinstance(value, int)}
    if len(whole) < len(ranks):
        raise FormatError(f"{path}: expected whole numbers in rank_pattern, found {ranks!r:.80}")
    return AdapterSettings(rank, float(alpha), whole, alphas, stabilised)


def _check_start(path: str, start: object) -> None:
    """Refuse an adapter whose base was changed when it began: beside the original base it means something else."""
    if start in _PLAIN_STARTS:
        return
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
        raise FormatError(
            f"{path}: init_lora_weights is {start!r}, which took something out of the base's weights when the adapter "
            "began: beside the original base the adapter gives wrong numbers. Convert it where it was trained, by "
            "PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=…), or save the changed base, give "
            'that as the checkpoint, and set "init_lora_weights": true'
        )
    raise FormatError(
        f"{path}: expected init_lora_weights among {', '.join(map(repr, _PLAIN_STARTS))}, found {start!r:.80}, which "
        "forq does not know: it may have changed the base"
    )


def _pattern(path: str, key: str, given: object) -> dict[str, float]:
    """Positive numbers by names of layers.

    Raises:
        FormatError: something else, or a regular expression: PEFT runs those, and forq runs nothing out of a file.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise FormatError(f"{path}: expected {key} to be an object, found {given!r:.80}")
    for name, value in given.items():
        if not _NAME.fullmatch(name):
            raise FormatError(f"{path}: expected names of layers in {key}, found {name!r:.80}: write the names out")
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise FormatError(f"{path}: expected positive numbers in {key}, found {value!r:.80} for {name}")
    return given


def _first(pattern: Mapping[str, float], module: str, usual: float) -> float:
    """What a pattern says of a layer; the first entry that fits counts, as in PEFT."""
    for name, value in pattern.items():
        if module == name or module.endswith(f".{name}"):
            return value
    return usual
