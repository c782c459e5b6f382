"""What the tokenizer in an adapter's folder says otherwise than the model's, which is the one that forq reads texts by.

Trainers save their tokenizer beside the adapter, with the chat template and the tokens that the adapter was trained on.
"""

from __future__ import annotations

from pathlib import Path

from forq.checkpoints import Checkpoint
from forq.checkpoints.json_file import read_json
from forq.models.tokenizer.opened import settings

_TOKENS, _TEMPLATE = "tokenizer.json", "chat_template.jinja"


def unlike(ckpt: Checkpoint, folder: Path) -> tuple[str, ...]:
    """Sentences on what an adapter's tokenizer says and the model's does not.

    Args:
        folder: the adapter's.

    Raises:
        FormatError: a tokenizer.json is no JSON.
    """
    if ckpt.contents.tokenizer is not None or folder.resolve() == ckpt.folder.resolve():
        return ()
    found = []
    template = _template(folder)
    if template is not None and template != _template(ckpt.folder):
        found.append(
            f"the tokenizer in the adapter's folder has another chat template than the model's; forq renders chats by "
            f"the model's: if the adapter was trained by its own, give that one (task.template={_file(folder)})"
        )
    if more := sorted(_added(folder) - _added(ckpt.folder)):
        names = ", ".join(repr(token) for token, _ in more[:3]) + (f" and {len(more) - 3} more" * (len(more) > 3))
        found.append(
            f"the tokenizer in the adapter's folder has tokens that the model's has not ({names}); forq reads texts by "
            "the model's: if the adapter was trained with them, copy that tokenizer's files over the model's"
        )
    return tuple(found)


def _file(folder: Path) -> str:
    file = folder / _TEMPLATE
    return str(file) if file.is_file() else "a file with the field chat_template of its tokenizer_config.json"


def _template(folder: Path) -> str | None:
    """The chat template of a folder: chat_template.jinja comes first, as in transformers; None where there is none."""
    file = folder / _TEMPLATE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    told = settings(folder).get("chat_template")
    return told if isinstance(told, str) else None


def _added(folder: Path) -> set[tuple[str, object]]:
    """The added tokens of a tokenizer.json, with their ids."""
    file = folder / _TOKENS
    listed = read_json(file).get("added_tokens") if file.is_file() else None
    tokens = listed if isinstance(listed, list) else []
    return {(str(token.get("content")), token.get("id")) for token in tokens if isinstance(token, dict)}
