"""Describe how forq tokenizes a model's texts: the chat template, BOS, and end tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forq.checkpoints import Checkpoint
from forq.models import sentences
from forq.models.tokenizer.opened import GENERATION, CheckpointTokenizer, settings
from forq.tokens.ends import turn_ends
from forq.tokens.template import ChatTemplate
from forq.tokens.text import bare, frame

_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")
_TRIALS = ("Hello, world. It's 1234567 o'clock\n\n\n  don't WAIT\t", " état naïve 你好 🙂 ", "<s>a </s>")
"""Texts that different tokenizers usually split differently: numbers, spaces, line breaks, other scripts."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How forq tokenizes the texts of a model.

    Attributes:
        template_source: the file of the chat template; None without a template.
        bos: who writes BOS: ``template``, ``tokenizer`` or ``nobody``.
        ends: ids that end a generated text.
        line: all of this in one line, to print.
        notes: one sentence for each disagreement between the model's files, naming the file that is followed.
    """

    template_source: str | None
    bos: str
    ends: tuple[int, ...]
    line: str
    notes: tuple[str, ...]


def reading(tokenizer: CheckpointTokenizer, ckpt: Checkpoint, template: Path | None = None) -> Reading:
    """Describe how a checkpoint's texts are tokenized.

    Args:
        template: the file of ``task.template``, if one replaces the checkpoint's template.
    """
    own = tokenizer.own
    source = _source(tokenizer, ckpt, template)
    chat = None
    if source is not None:
        chat = ChatTemplate(own, None if template is None else template.read_text(encoding="utf-8"))
    plain_bos = bool(frame(own)[0])
    writes = chat is not None and chat.begins
    origins: dict[int, str] = {}
    for token in turn_ends(own, chat):
        origins[token] = "the template"
    for token in tokenizer.generation_ends:
        origins.setdefault(token, _named(ckpt))
    if getattr(own, "eos_token_id", None) is not None:
        origins.setdefault(int(own.eos_token_id), "the tokenizer")
    parts = [f"chat template from {source}" if source else "no chat template"]
    parts.append(_bos(chat is not None, writes, plain_bos))
    turn = chat.end if chat is not None else ()
    if turn:
        parts.append(f"turns end with {''.join(turn)}")
    others = {_token(own, token): origin for token, origin in origins.items() if _token(own, token) not in turn}
    if others:
        named = ", ".join(token if origin == source else f"{token} ({origin})" for token, origin in others.items())
        parts.append(f"generation {'also ' if turn else ''}stops at {named}")
    return Reading(
        template_source=source,
        bos="template" if writes else "tokenizer" if plain_bos else "nobody",
        ends=tuple(origins),
        line=", ".join(parts),
        notes=(*getattr(own, "notes", ()), *_disagreements(own, ckpt)),
    )


def _source(tokenizer: CheckpointTokenizer, ckpt: Checkpoint, template: Path | None) -> str | None:
    if template is not None:
        return str(template)
    if not getattr(tokenizer.own, "chat_template", None):
        return None
    if ckpt.contents.tokenizer is not None:
        return ckpt.path.name
    # As in transformers, chat_template.jinja takes precedence over the field of tokenizer_config.json.
    jinja = ckpt.folder / "chat_template.jinja"
    return jinja.name if jinja.is_file() else "tokenizer_config.json"


def _named(ckpt: Checkpoint) -> str:
    if ckpt.contents.tokenizer is not None:
        return ckpt.path.name
    return GENERATION if (ckpt.folder / GENERATION).is_file() else "config.json"


def _bos(chat: bool, writes: bool, plain: bool) -> str:
    by = "BOS by the tokenizer" if plain else "no BOS"
    if not chat:
        return by
    if writes:
        return "BOS by the template" + ("" if plain else ", none in plain texts")
    return f"{by} in plain texts, none in conversations" if plain else by


def _token(own: Any, token: int) -> str:
    spelling = own.convert_ids_to_tokens(token)
    return str(token) if spelling is None else str(spelling)


def _disagreements(own: Any, ckpt: Checkpoint) -> Iterator[str]:
    """Compare tokenizer_config.json and tokenizer.json with the tokenizer that transformers loads."""
    if ckpt.contents.tokenizer is not None:
        return
    declared, file = settings(ckpt.folder), ckpt.folder / "tokenizer.json"
    front, back = frame(own)
    for name, token, there in (
        ("add_bos_token", "BOS", own.bos_token_id is not None and own.bos_token_id in front),
        ("add_eos_token", "EOS", own.eos_token_id is not None and own.eos_token_id in back),
    ):
        if isinstance(declared.get(name), bool) and declared[name] != there:
            does = "writes one" if there else "writes none"
            yield (
                f"tokenizer_config.json says {name} {str(declared[name]).lower()}, and the tokenizer that transformers "
                f"loads {does}: forq follows transformers, {token if there else 'no ' + token} by the tokenizer"
            )
    wanted = str(declared.get("tokenizer_class") or "").removesuffix("Fast")
    got = type(own).__name__.removesuffix("Fast")
    if not file.is_file():
        return
    if wanted and wanted not in _GENERIC and wanted != got:
        yield (
            f"tokenizer_config.json names {wanted}, and transformers loads {got}, which reads tokenizer.json as it is: "
            "forq follows transformers"
        )
    if (text := _differing(own, file)) is not None:
        yield (
            f"tokenizer.json splits texts differently from {got}, which transformers loads ({text!r}, for example): "
            "forq follows transformers"
        )


def _differing(own: Any, file: Path) -> str | None:
    """A trial text that tokenizer.json alone splits differently; None if there is none."""
    from tokenizers import Tokenizer

    try:
        alone = Tokenizer.from_file(str(file))
    except Exception:  # the library raises no more specific class
        return None
    if sentences.lowers(file.parent):
        sentences.lower(alone)
    alone.no_truncation()
    alone.no_padding()
    return next((text for text in _TRIALS if alone.encode(text, add_special_tokens=False).ids != bare(own, text)), None)
