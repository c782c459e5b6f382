"""What diffusers computes with 4-bit transformers of pipelines that it loads through bitsandbytes, on the CPU.

    answers.py INPUTS.safetensors FOLDER...      each answer is written as FOLDER/answer.safetensors

diffusers asks for a GPU before it lets bitsandbytes load anything: that question is left out. `native` is by
bitsandbytes' own layers, which may compute in bfloat16; `plain` by float32 layers of the matrices it dequantises.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "bnb"))
import generic  # noqa: F401
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from diffusers import SD3Transformer2DModel
from diffusers.quantizers.bitsandbytes.bnb_quantizer import BnB4BitDiffusersQuantizer
from safetensors.torch import load_file, save_file

BnB4BitDiffusersQuantizer.validate_environment = lambda *_, **__: None
inputs = load_file(sys.argv[1])
for folder in map(Path, sys.argv[2:]):
    model = SD3Transformer2DModel.from_pretrained(
        folder, subfolder="transformer", torch_dtype=torch.float32, device_map={"": "cpu"}
    )
    layers = [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]
    assert layers, "no layer was loaded in 4 bits"
    matrices = {
        name: dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        for name in layers
        for layer in [model.get_submodule(name)]
    }
    answers = {}
    for way in ("native", "plain"):
        with torch.no_grad():
            answers[way] = model(inputs["x"], inputs["text"], inputs["pooled"], inputs["time"], return_dict=False)[0]
        for name, matrix in matrices.items():
            layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0])
            layer.weight.data, layer.bias = matrix, model.get_submodule(name).bias
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
    save_file({way: answer.contiguous() for way, answer in answers.items()}, folder / "answer.safetensors")
