"""The page on formats, made of every format's ``about``: ``python -m forq.formats._page > docs/formats.md``."""

from __future__ import annotations

from forq.formats import About, all_formats, exportable

_HEAD = """# Formats

This page is generated from the formats' own descriptions (`python -m forq.formats._page`). For every row,
`make test-oracles` takes checkpoints that the format's library wrote or reads, compares the weights, moves and
saves them, and loads the result in that library.

{table}

A save is a copy of the original files in which only the bytes of what moved differ; exceptions are named below. What is
scored at the end is the saved file. Checkpoints are recognised by what they hold, and nothing in one is ever run.

**Kinds.** *scales* are continuous and move by QZO. *codes* are the integers themselves and move by whole cells
([grids](grids.md)). *zeros* are integer zero points, *offsets* continuous ones, *codebooks* tables of vectors: `--move`
names them. `forq inspect CHECKPOINT` shows which tensors are trainable, the memory needed, and what a save changes.

**Hub ids**: `organisation/name` for safetensors and HQQ, `organisation/name/x.gguf` or `organisation/name/onnx/x.onnx`
for one file ([models](models.md#hub-ids)).

**Float checkpoints** (any tensor can move: `--move all-float`) are quantized on the way in by `--quantize-on-load` of
`forq tune` (`gptq4`, `gptq2`, `gptq3`, `gptq8`, `nf4`, `fp4`), or for good by `forq quantize`. Both refuse a layer
whose shape the format cannot hold. `forq quantize --keep NAME` leaves such a layer in float: NAME is its name, the end
of it, or has `*` in it. `--quantize-on-load` has no such option. The configuration written names these layers as the
owner's loaders read it (`dynamic` and `modules_in_block_to_quantize` for GPTQ, `llm_int8_skip_modules` for
bitsandbytes).

**From one format to another**: `forq export RUN --to {targets}|gguf|float16|bfloat16|float32 --out FOLDER`.
Integers go whole or not at all: the same codes, zero points and scales in other places, compared one by one afterwards.
Quantized embeddings and heads become floats, since loaders of these formats expect them so. Into floats every weight is
rounded once, and the command says how many changed and by how much. The rotary factors of a GGUF file of Llama 3 become
settings of config.json; a file whose rotary scaling has no settings is refused. ONNX stays ONNX. What a GGUF file
takes: [models.md](models.md#a-gguf-file-from-another-checkpoint).

**Damaged files** are refused by a `FormatError` that names what was expected and found: two hundred mutations of every
format are tried in CI, `python -m tests.fuzz --count 10000` tries more. NaN and infinity in a tensor that is read as
floats are refused by the tensor's name.
"""


def page() -> str:
    """The whole page, Markdown."""
    parts = [_HEAD.format(table=table(), targets="|".join(exportable()))]
    for about in abouts():
        summary = f"Bits: {about.bits}. A save is {about.exported}. Verified: {about.library}."
        parts.append(f"## {about.title}\n\n{summary}\n")
        if about.exceptions:
            parts.append("Exceptions: " + "; ".join(about.exceptions) + ".\n")
        if about.zero_points:
            parts.append(f"Zero points: {about.zero_points}\n")
        parts.append("```\n" + "\n".join(about.layout) + "\n```\n")
    return "\n".join(parts)


def abouts() -> list[About]:
    """Every format in words, sorted by title."""
    return sorted((form.about for form in all_formats()), key=lambda about: about.title.lower())


def table() -> str:
    """What can move in every format, and which library was seen to load a saved file."""
    rows = ["| format | bits | scales | codes | others | verified with |", "|---|---|---|---|---|---|"]
    for about in abouts():
        others = ", ".join(kind for kind in about.moves if kind not in ("scales", "codes")) or "–"
        codes = "yes" if "codes" in about.moves else "–"
        rows.append(f"| {about.title} | {about.bits} | yes | {codes} | {others} | {about.library} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
