"""forq attack: how robust one's own model is against someone who can only query it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from forq.cli import _arguments as given
from forq.errors import ConfigError


def attack(
    victim: Annotated[
        str, typer.Argument(metavar="VICTIM", help="model.onnx, model.pt2, module:function or file.py:function.")
    ],
    images: Annotated[
        Path, typer.Option(help=".npz with images and labels (uint8), or a folder of PNG files.", parser=given.path)
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the results. The same command continues an attack that was stopped.", parser=given.path
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="File with the labels, if --images has none: .csv, .json, .npy or .npz.", parser=given.path),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the output with the scores, if the file has several outputs."),
    ] = None,
    norm: Annotated[
        Literal["linf", "l2"], typer.Option(help="Norm that --eps bounds: linf (the largest change) or l2.")
    ] = "linf",
    eps: Annotated[float, typer.Option(help="Largest change allowed, in pixel levels of 0 … 255; also for l2.")] = 8.0,
    budget: Annotated[int, typer.Option(help="Most queries for one image, that of the original included.")] = 1000,
    recipe: Annotated[str, typer.Option(help="Attack method; `forq ls attacks` lists them.")] = "zoqo",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the method; repeatable.")
    ] = None,
    targeted: Annotated[
        bool, typer.Option("--targeted", help="Aim at one class, drawn for each image, instead of any wrong class.")
    ] = False,
    loss: Annotated[Literal["margin", "cross-entropy"], typer.Option(help="Loss to minimize.")] = "margin",
    input: Annotated[
        Literal["uint8", "float"],
        typer.Option(help="What the victim takes: uint8 [N, H, W, C], or float32 [N, C, H, W] in 0 … 1."),
    ] = "uint8",
    seed: Annotated[int, typer.Option(help="Seed of all noise.")] = 0,
    batch: Annotated[int, typer.Option(help="Number of images in one call of the victim.")] = 64,
    timeout: Annotated[
        float | None, typer.Option(help="Most seconds for one call of the victim. Default: no limit.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of an .onnx victim.")] = None,
    as_json: given.Json = False,
) -> None:
    """Attack your own image classifier through its scores, on whole pixel levels, and count the queries.

    Images that the classifier gets wrong from the start are left out. A success counts only after its image was
    written as PNG, read again and scored once more.
    """
    from forq.attacks import images as _images
    from forq.attacks import picture as _picture
    from forq.attacks import victims as _victims
    from forq.attacks.attack import attack as run
    from forq.attacks.queries import ImageOutcome
    from forq.cli import _screen

    settings = {}
    for text in sets or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set takes key=value, found {text!r}")
        settings[key.strip()] = value.strip()
    x, y = _images.read(images, labels)
    predict, digest = _victims.open_victim(victim, floats=input == "float", threads=threads, output=output)
    with _screen.err.status(f"0 of {len(x)} images") as status:
        done = [0, 0]

        def show(outcome: ImageOutcome, queries: int) -> None:
            done[0] += 1
            done[1] += outcome.success
            status.update(f"{done[0]} of {len(x)} images, {done[1]} adversarial, {queries} queries")

        try:
            result = run(
                predict,
                x,
                y,
                norm=norm,
                eps=eps,
                budget=budget,
                recipe=recipe,
                settings=settings,
                targeted=targeted,
                loss=loss,
                seed=seed,
                batch=batch,
                input=input,
                timeout=timeout,
                out=out,
                victim={"sha256": digest, "function": victim.rpartition(":")[2] if ":" in victim else None}
                | ({} if output is None else {"output": output}),
                progress=show,
            )
        except KeyboardInterrupt:
            _screen.err.print(
                f"stopped; the images that are done are in {out}. Go on with the same command",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )
            raise
    _picture.draw(result, x, out / "picture.png")
    drawn = _picture.plot(result, out / "curve.png")
    summary = result.summary()
    if as_json:
        _screen.data({"out": str(out), **summary})
        return
    low, high = summary["success_rate_95"]
    tell = _screen.out.print
    tell(f"rightly classified   {summary['correct']} of {summary['done']}", highlight=False)
    tell(
        f"adversarial          {summary['success']} of {summary['correct']}, {100 * summary['success_rate']:.1f} % "
        f"(95 %: {100 * low:.1f} … {100 * high:.1f})",
        highlight=False,
    )
    tell(
        f"queries an image     mean {summary['queries_mean']:.1f}, median {summary['queries_median']:.0f}",
        highlight=False,
    )
    tell(f"queries in all       {summary['queries']}, and {summary['checks']} checks after PNG", highlight=False)
    tell(f"results              {out}", highlight=False, soft_wrap=True)
    if not drawn:
        _screen.err.print("curve.png needs matplotlib: pip install 'forq\\[plots]'", highlight=False)
