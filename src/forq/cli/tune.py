"""forq tune: the main job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given


def tune(
    checkpoint: given.Checkpoint,
    out: Annotated[
        Path,
        typer.Option(
            help="The run's folder: new, empty, or with --resume a stopped run's.", parser=given.path, metavar="PATH"
        ),
    ],
    task: Annotated[str | None, typer.Option(help="What to train on; `forq ls tasks`.")] = None,
    data: given.Data = None,
    reward: given.Reward = None,
    recipe: Annotated[str | None, typer.Option(help="Which method; `forq ls recipes`. Default: qzo.")] = None,
    move: Annotated[
        str | None,
        typer.Option(
            help="Kinds that move, with commas: scales, codes, zeros, offsets, codebooks, norms, biases, embeddings, "
            "dense, lora, all-float; `forq inspect` says which there are. Default: the recipe's."
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of the adapters that --move lora begins. Default: 8.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Their product counts alpha/rank times. Default: 16.")] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            help="Which layers carry one: all-linear, qv, or ends of names, q_proj,v_proj. Default: all-linear."
        ),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="Adapters on an integer grid of 2 … 8 bits. Default: 8 with zoqo, else float.")
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="A safetensors file of factors for single coordinates; 0 is a mask.", parser=given.path, metavar="PATH"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps. Default: 2000.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of noise and data order. Default: 0.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between scores. Default: a twentieth.")] = None,
    tokens_per_probe: Annotated[
        int | None, typer.Option(help="Batches of so many tokens, in place of task.batch_rows rows.")
    ] = None,
    micro_batch_tokens: given.MicroBatch = None,
    resolution: Annotated[int | None, typer.Option(help="Of text-to-image: pixels of a side. Default: 512.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting: rule.lr=1e-3, task.max_length=64; repeatable."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. Default: auto.")] = None,
    kernel: Annotated[
        str | None, typer.Option(help="Of quantized layers: auto, reference, ort or triton. Default: auto.")
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(help="int8: rounded to 8 bits in front of 8-bit layers with one scale a row. Default: float."),
    ] = None,
    quantize_on_load: Annotated[
        str | None,
        typer.Option(
            help="Quantize a float checkpoint into OUT/base first, and tune that: gptq4, gptq8, gptq3, gptq2, nf4, fp4."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard's files, into the run's folder tensorboard/.")
    ] = False,
    as_json: given.Json = False,
) -> None:
    """Tune a quantized checkpoint with forward passes only, and save the same kind of checkpoint."""
    from forq import config as configs
    from forq.cli import _tuning
    from forq.core import ConfigError
    from forq.train import settings

    if quantize_on_load is not None:
        from forq.models.onload import quantized
        from forq.runfiles import BASE, vacant

        if not resume and out.exists() and not vacant(out):
            raise ConfigError(f"{out} is in the way: go on with it by --resume, or choose another --out")
        checkpoint = str(quantized(checkpoint, quantize_on_load, out / BASE))
    if resolution is not None:
        sets = [*(sets or []), f"task.resolution={resolution}"]
    adapters = {"rank": rank, "alpha": alpha, "targets": targets, "bits": bits}
    if resume:
        wanted: dict[str, object] = {
            "--task": task,
            "--recipe": recipe,
            "--steps": steps,
            "--seed": seed,
            "--set": sets,
        }
        wanted |= {
            "--eval-every": eval_every,
            "--kernel": kernel,
            "--activations": activations,
            "--move": move,
            **{f"--{name}": value for name, value in adapters.items()},
            "--profile": profile,
            "--reward": reward,
            "--tokens-per-probe": tokens_per_probe,
            "--micro-batch-tokens": micro_batch_tokens,
        }
        if not (out / "config.toml").exists():
            raise ConfigError(f"{out}: no run to resume is there; leave out --resume to begin one")
        config = configs.read(out / "config.toml")
        if given_now := [name for name, value in wanted.items() if value is not None]:
            raise ConfigError(f"--resume keeps the run's settings: leave out {', '.join(given_now)}")
        found = config.task.data if data is None else given.data_path(data, config.task.name)
        config = config.model_copy(
            update={
                "checkpoint": checkpoint,
                "task": config.task.model_copy(update={"data": found}),
                "device": device or config.device,
            }
        )
    else:
        if task is None:
            raise typer.BadParameter("which task? `forq ls tasks` lists them", param_hint="--task")
        lora = [f"lora.{name}={json.dumps(value)}" for name, value in adapters.items() if value is not None]
        config = settings(
            recipe or "qzo",
            [*([] if move is None else [f"move={move}"]), *lora, *(sets or [])],
            steps=2000 if steps is None else steps,
            eval_every=eval_every,
            checkpoint=checkpoint,
            task=configs.TaskConfig(
                name=task,
                data=given.data_path(data, task),
                reward=reward,
                tokens_per_probe=tokens_per_probe,
                micro_batch_tokens=micro_batch_tokens,
            ),
            seed=0 if seed is None else seed,
            device=device or "auto",
            kernel=kernel or "auto",
            activations=activations or "float",
            profile=None if profile is None else str(profile.resolve()),
        )
        if lora and "lora" not in config.method.kinds:
            raise ConfigError(f"--{lora[0][5:].partition('=')[0]} is of adapters, which do not move; add --move lora")
    _tuning.tune(config, out, resume=resume, tensorboard=tensorboard, as_json=as_json)
