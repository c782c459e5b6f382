"""Build a tokenizer of transformers from a GGUF file. It gives the same ids as llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forq.checkpoints.containers.gguf.merges import by_score, by_table
from forq.checkpoints.containers.gguf.pretokenizer import SPLITTINGS, expression
from forq.checkpoints.containers.gguf.spellings import SPECIAL, USER_DEFINED, overlap
from forq.checkpoints.containers.gguf.vocabulary import Vocabulary, flag, read
from forq.errors import FormatError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPACE = "▁"


def tokenizer(path: Path, values: Mapping[str, Any]) -> Any:
    """Build a ``PreTrainedTokenizerFast`` with the file's vocabulary.

    ``tokenizer(text)`` gives llama.cpp's ids with BOS and EOS as the file specifies;
    ``tokenizer(text, add_special_tokens=False)`` gives them without. Special tokens in the text become
    tokens in both cases. The attribute ``notes`` holds sentences for the user about the vocabulary.

    Args:
        values: the header's values.

    Raises:
        FormatError: the vocabulary is damaged, or of an unsupported kind.
    """
    from transformers import PreTrainedTokenizerFast

    vocabulary = read(path, values)
    built, notes = (_byte_pairs if vocabulary.model == "gpt2" else _pieces)(path, values, vocabulary)
    notes += _add_special(built, values, vocabulary)
    _frame(built, vocabulary)
    names, unnamed = _names(vocabulary)
    made = PreTrainedTokenizerFast(
        tokenizer_object=_Uncopied(built),
        chat_template=_chat_templates(path, values),
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )
    made.notes = (*vocabulary.notes, *notes, *unnamed)
    return made


class _Uncopied:
    """A tokenizer that transformers keeps as it is: transformers takes a deep copy of what it is given.

    A copy of 262,144 tokens takes 320 MB and two and a half seconds.
    """

    def __init__(self, built: Tokenizer) -> None:
        self.built = built

    def __deepcopy__(self, _: object) -> Tokenizer:
        return self.built


def _byte_pairs(path: Path, values: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[Tokenizer, tuple[str, ...]]:
    """A byte-pair tokenizer: patterns split the text into words, and the bytes of a word merge."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    splitting = SPLITTINGS[vocabulary.pre]
    merges = by_table(path, values, vocabulary)
    raw = not splitting.spells_bytes
    built = Tokenizer(
        models.BPE(dict(vocabulary.ids), merges, fuse_unk=raw, byte_fallback=raw, ignore_merges=splitting.whole_words)
    )
    steps: list[Any] = [pre_tokenizers.Split(Regex(expression(pattern)), "isolated") for pattern in splitting.patterns]
    if raw:
        built.normalizer = normalizers.Replace(" ", _SPACE)
        built.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        built.decoder = decoders.ByteLevel()
    built.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return built, ()


def _pieces(path: Path, values: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[Tokenizer, tuple[str, ...]]:
    """A SentencePiece tokenizer: text between special tokens is not split; characters merge by score."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    prefix = flag(path, values, "add_space_prefix", True)
    unknown = None if vocabulary.unknown is None else list(vocabulary.ids)[vocabulary.unknown]
    merges, notes = by_score(path, values, vocabulary)
    model = models.BPE(dict(vocabulary.ids), merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    built = Tokenizer(model)
    spaces = normalizers.Replace(" ", _SPACE)
    # Each text between special tokens is normalised by itself: llama.cpp puts a space before each.
    built.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    steps: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    built.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return built, notes


def _add_special(built: Tokenizer, values: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[str, ...]:
    """Add the special tokens, which are matched before the text is split. Their ids do not change.

    Returns notes for the user.
    """
    from tokenizers import AddedToken

    strips_left, strips_right = _strips_spaces(values, vocabulary)
    special: list[AddedToken] = []
    user_defined: list[AddedToken] = []
    for text, token in vocabulary.ids.items():
        if vocabulary.types[token] in SPECIAL:
            by_user = vocabulary.types[token] == USER_DEFINED
            added = AddedToken(
                text, lstrip=text in strips_left, rstrip=text in strips_right, normalized=False, special=not by_user
            )
            (user_defined if by_user else special).append(added)
    built.add_special_tokens(special)
    built.add_tokens(user_defined)
    pair = overlap([added.content for added in (*special, *user_defined)])
    if pair is None:
        return ()
    return (f"the special tokens {pair[0]!r:.40} and {pair[1]!r:.40} overlap; llama.cpp finds the longest first",)


def _strips_spaces(values: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[set[str], set[str]]:
    """Special tokens that absorb the spaces before them, and those that absorb the spaces behind them.

    No key specifies this. llama.cpp decides by the name of the model or of the pre-tokenizer.
    """
    name = str(values.get("general.name", "")).lower()
    if any(kind in vocabulary.pre for kind in ("jina-v2-de", "jina-v2-es", "jina-v2-code")):
        return {"<mask>"}, set()
    if "phi-3" in name or "phi3" in name:
        return set(), set(vocabulary.ids) - {"<unk>", "<s>", "<|endoftext|>"}
    if "modern-bert" in name:
        return {"[MASK]"}, set()
    return set(), set()


def _frame(built: Tokenizer, vocabulary: Vocabulary) -> None:
    """Add BOS and EOS around a text as the file specifies."""
    from tokenizers import processors

    spellings = list(vocabulary.ids)
    requested = {
        "bos": vocabulary.bos if vocabulary.adds_bos else None,
        "eos": vocabulary.eos if vocabulary.adds_eos else None,
    }
    present = {name: token for name, token in requested.items() if token is not None}
    template = [name for name in ("bos", "$", "eos") if name == "$" or name in present]
    single = [f"{'$A' if name == '$' else name}:0" for name in template]
    second = [f"{'$B' if name == '$' else name}:1" for name in template]
    built.post_processor = processors.TemplateProcessing(
        single=single,
        pair=[*single, *second],
        special_tokens=[{"id": name, "ids": [token], "tokens": [spellings[token]]} for name, token in present.items()],
    )


def _names(vocabulary: Vocabulary) -> tuple[dict[str, str], tuple[str, ...]]:
    """The tokens with a name in transformers (BOS, EOS, …), and notes on ids that get no name.

    transformers matches named tokens before it splits a text. An ordinary token with such a name would
    split words that llama.cpp does not split, so it gets none.
    """
    spellings = list(vocabulary.ids)
    ids = {"bos": vocabulary.bos, "eos": vocabulary.eos, "unk": vocabulary.unknown, "pad": vocabulary.padding}
    names, notes = {}, []
    for name, token in ids.items():
        if token is not None and vocabulary.types[token] in SPECIAL:
            names[f"{name}_token"] = spellings[token]
        elif token is not None:
            notes.append(
                f"the {name} token is {token} ({spellings[token]!r:.40}), which is an ordinary token of the file"
            )
    return names, tuple(notes)


def _chat_templates(path: Path, values: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The chat template; if there are several, all of them by name."""
    key = "tokenizer.chat_template"
    templates = {
        name.removeprefix(key).removeprefix("."): text for name, text in values.items() if name.startswith(key)
    }
    templates.pop("s", None)  # tokenizer.chat_templates lists the names
    for name, text in templates.items():
        if not isinstance(text, str):
            raise FormatError(f"{path}: {key}{'.' if name else ''}{name}: expected a text, found {text!r:.80}")
    if set(templates) <= {""}:
        return templates.get("")
    return {name or "default": text for name, text in templates.items()}
