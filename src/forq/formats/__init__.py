"""Formats: codecs between a checkpoint and quantized weights. One format is one module here.

A format module offers

    recognise(ckpt) -> bool                  by what the checkpoint holds, never by a library's class path
    layers(ckpt) -> dict[str, LayerSpec]     the quantized modules, checked against the settings
    read(ckpt, spec) -> Parts                what stands still of one of them, its live tensors, its bias
    example(folder) -> Path                  a tiny valid checkpoint, for the contract tests
    VARIANTS                                 other shapes of the format, as changes of the example's settings
    ABOUT                                    the format in words, :class:`forq.formats._about.About`

and, where the format has them,

    filed_codes(ckpt, spec) -> FiledCodes    how integer codes are packed again, so that they can move
    zero_points(ckpt, spec) -> ZeroPoints    the same of integer zero points (``spec.zeros`` names them)
    read_live(ckpt, spec, live) -> Tensor    one live tensor alone, where it is not simply a tensor of the file
    unlike(ckpt, activations) -> tuple[str, ...]   what its owner computes and forq does not, a sentence each, for users
    exported(ckpt) -> str                    ``ABOUT.exported`` of this checkpoint, where checkpoints differ in it
    fixed(ckpt) -> dict[str, LayerSpec]      quantized layers that nothing can move, where there are some
    relaid(ckpt, moved) -> Relaid            what a save writes, where replacing the bytes of what moved does not do
"""
