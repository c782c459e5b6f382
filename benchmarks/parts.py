"""What several benchmarks need: times taken in turn, a batch and its loss, and a model with random weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from forq.models.convert.quantize import quantize
from forq.models.graph.language_model import GraphLM
from forq.tasks.objectives.losses import mean_nll
from forq.tokens.batches import Batch


def interleaved(
    tasks: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each task by a clock, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            began = clock()
            task()
            times[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def batch(model: Any, rows: int, length: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (rows, length), generator=generator)
    columns = torch.arange(length - 1)
    return Batch(
        input_ids=ids,
        row=torch.arange(rows).repeat_interleave(length - 1),
        column=columns.repeat(rows),
        target=ids[:, 1:].reshape(-1),
        lengths=(length - 1,) * rows,
    )


def loss(model: Any, data: Batch) -> float:
    """Next-token loss of a decoder; of an encoder the mean of its last states, which means nothing."""
    with torch.inference_mode():
        if isinstance(model, GraphLM) or model.get_output_embeddings() is not None:
            return float(mean_nll(model, data))
        return float(model(input_ids=data.input_ids).last_hidden_state.mean())


def random_llama(where: Path) -> tuple[Path, Path]:
    """About 100 million parameters with random weights, in floats and at 4 bits, group 128."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=13,
        num_attention_heads=12,
        num_key_value_heads=12,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(where / "float")
    return where / "float", quantize(where / "float", where / "gptq", group_size=128).path
