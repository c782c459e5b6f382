"""PEFT's adapter_config.json: the settings that change numbers, and what forq does with each.

The adapter's output is scaled by α/r, or by α/√r with ``use_rslora``. ``rank_pattern`` and
``alpha_pattern`` may give single layers their own r and α. The tensors show which layers carry an
adapter; like PEFT, forq skips a targeted layer without factors. Factors of a layer that the
configuration leaves out (:mod:`forq.models.adapters.chosen`) are refused: PEFT passes them over. Every
other setting that changes the result is refused by name. The fields are those of PEFT 0.21.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forq.checkpoints.json_file import read_json
from forq.errors import FormatError
from forq.models.adapters.chosen import Chosen, chosen

CONFIG = "adapter_config.json"

_HONOURED = {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"}

_NO_EFFECT = {
    # origin of the adapter
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    # layers with an adapter; the tensors show them, and are compared with these
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    # used in training only
    *("lora_dropout", "runtime_config"),
    # initial factors, if init_lora_weights asks for them
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    # memory layout of a base matrix when an adapter is merged into it
    *("fan_in_fan_out", "megatron_core"),
    # read only with use_qalora
    "qalora_group_size",
}
"""Settings that do not change what a saved adapter adds to a layer, whatever their value."""

_REFUSED = {
    "bias": "trained biases of the base layers",
    "use_dora": "a separate direction and magnitude for every weight",
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
"""Settings that change the result and that forq does not compute, with their meaning."""

AT_REST = (None, False, "", "none")
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga", "lora-ga", "loftq")
_NAME = re.compile(r"[A-Za-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The settings of an adapter that change numbers.

    Attributes:
        rank, alpha: rank and α of layers that no pattern matches.
        ranks, alphas: rank and α by layer name, or by the last part of a name; the first match
            counts.
        stabilised: whether the output is scaled by α/√r in place of α/r.
        chosen: the layers with an adapter.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    stabilised: bool
    chosen: Chosen = field(default_factory=Chosen)

    def rank_of(self, module: str) -> int:
        """Rank of a layer's adapter."""
        return int(_first(self.ranks, module, self.rank))

    def alpha_of(self, module: str) -> float:
        """α of a layer's adapter, such that its output is scaled by α/r."""
        alpha, rank = float(_first(self.alphas, module, self.alpha)), self.rank_of(module)
        return alpha / math.sqrt(rank) * rank if self.stabilised else alpha


def read(path: Path) -> AdapterSettings:
    """The settings of an adapter, from its ``adapter_config.json``.

    Raises:
        FormatError: it is not a plain LoRA adapter, or a setting (named) changes the result in a
            way forq does not compute.
    """
    return checked(str(path), read_json(path))


def checked(path: str, fields: Mapping[str, object]) -> AdapterSettings:
    """The settings in the fields of a configuration; errors name it by ``path``.

    Raises:
        FormatError: see :func:`read`.
    """
    alpha = fields.get("lora_alpha")
    rank = fields.get("r")
    if not (
        fields.get("peft_type") == "LORA"
        and (isinstance(rank, int) and rank > 0)
        and (isinstance(alpha, int | float) and math.isfinite(alpha))
    ):
        raise FormatError(
            f"{path}: expected peft_type 'LORA' with r and lora_alpha, found {fields.get('peft_type')!r:.80} with "
            f"{rank!r:.80} and {alpha!r:.80}"
        )
    _check_start(path, fields.get("init_lora_weights", True))
    for key, value in fields.items():
        if key in _HONOURED or key in _NO_EFFECT or value in AT_REST or value in ([], {}):
            continue
        why = f" ({_REFUSED[key]})" if key in _REFUSED else ", a setting forq does not know"
        raise FormatError(
            f"{path}: expected {key} to be off, found {value!r:.80}{why}; without it the adapter would give other "
            "numbers than PEFT's: use a plain LoRA adapter, or merge this one into its base with PEFT"
        )
    stabilised = fields.get("use_rslora") or False
    if type(stabilised) is not bool:
        raise FormatError(f"{path}: expected use_rslora to be true or false, found {stabilised!r:.80}")
    ranks, alphas = (_pattern(path, key, fields.get(key)) for key in ("rank_pattern", "alpha_pattern"))
    whole_ranks = {name: value for name, value in ranks.items() if isinstance(value, int)}
    if len(whole_ranks) < len(ranks):
        raise FormatError(f"{path}: expected whole numbers in rank_pattern, found {ranks!r:.80}")
    return AdapterSettings(rank, float(alpha), whole_ranks, alphas, stabilised, chosen(path, fields))


def _check_start(path: str, start: object) -> None:
    """Refuse an adapter whose initialisation changed its base: on the original base it gives other numbers."""
    if start in _PLAIN_STARTS:
        return
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
        raise FormatError(
            f"{path}: init_lora_weights is {start!r}, which changes the base's weights when the adapter is made: "
            "on the original base the adapter gives wrong numbers. Convert it where it was trained with PEFT's "
            "save_pretrained(…, path_initial_model_for_weight_conversion=…), or save the changed base, use it as the "
            'checkpoint, and set "init_lora_weights": true'
        )
    raise FormatError(
        f"{path}: expected init_lora_weights among {', '.join(map(repr, _PLAIN_STARTS))}, found {start!r:.80}, which "
        "forq does not know: it may have changed the base"
    )


def _pattern(path: str, key: str, given: object) -> dict[str, float]:
    """Positive numbers by layer name.

    Raises:
        FormatError: the value is not such a table, or holds a regular expression with other signs than
            the dot. PEFT evaluates regular expressions; forq never evaluates anything from a file.
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


def _first(pattern: Mapping[str, float], module: str, default: float) -> float:
    """A pattern's value for a layer; the first entry that matches counts, as in PEFT.

    PEFT reads a name as a regular expression. The dot is the only sign in it that is no letter, and stands for any
    character, so that the name and the end of the layer's name that it matches are of one length.
    """
    for name, value in pattern.items():
        end = module[-len(name) :]
        same = len(end) == len(name) and all(mine in (".", its) for mine, its in zip(name, end, strict=True))
        if same and module[: -len(name)][-1:] in ("", "."):
            return value
    return default
