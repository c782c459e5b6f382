"""Formats: codecs between a checkpoint folder and quantized weights. One format is one module here.

A format module offers

    recognise(ckpt) -> bool              by what the checkpoint holds, never by a library's class path
    layers(ckpt) -> dict[str, LayerSpec] the quantized modules, checked against the settings
    read(ckpt, spec) -> Parts            integers, scales and bias of one of them
    example(folder) -> Path              a tiny valid checkpoint, for the contract tests
"""
