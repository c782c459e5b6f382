"""forq sample: a picture of a diffusion model; of a run, before beside after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forq.cli import _arguments as given


def sample(
    pipeline: given.Tuned,
    prompt: Annotated[str, typer.Option(help="What to draw.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.", parser=given.path, metavar="PATH")],
    seed: Annotated[int, typer.Option(help="Seed of the noise that the picture begins from.")] = 0,
    steps: Annotated[int, typer.Option(help="Number of steps of the scheduler.")] = 28,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance; 1 turns it off.")] = 4.5,
    resolution: Annotated[int, typer.Option(help="Side of the picture, in pixels.")] = 512,
    text_tokens: Annotated[
        int, typer.Option(help="Most tokens of the prompt for T5 (max_sequence_length in diffusers).")
    ] = 256,
    adapter: given.Adapter = None,
    device: given.Device = "auto",
    kernel: given.Kernel = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: given.Json = False,
) -> None:
    """Draw a picture with a diffusion pipeline; for a run, draw base and tuned side by side."""
    from PIL import Image

    from forq.cli import _screen
    from forq.cli._finished import finished
    from forq.errors import ConfigError
    from forq.models.diffusion.pipeline import draw
    from forq.models.load import load

    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out: expected a name that ends in .png, found {out}")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already: choose another --out, or give --overwrite")
    sources: list[tuple[str, str, Path | None]] = [("", pipeline, adapter)]
    if (run := finished(pipeline)) is not None:
        run.require_base()
        sources = [("before", run.base, run.start), ("after", run.saved, run.adapter)]
    how: Any = {"kernel": kernel}
    drawn = []
    for _, source, factor in sources:
        model = load(source, device, adapter=factor, **how)
        drawn.append(draw(model, prompt, seed, steps, guidance, resolution, text_tokens))
        del model
    whole = Image.new("RGB", (sum(picture.width for picture in drawn), drawn[0].height))
    for place, picture in enumerate(drawn):
        whole.paste(picture, (place * drawn[0].width, 0))
    whole.save(out)
    names = [name for name, _, _ in sources if name]
    if as_json:
        _screen.data({"picture": str(out), "size": list(whole.size), "seed": seed, "prompt": prompt, "shows": names})
    else:
        shows = f" ({' | '.join(names)})" if names else ""
        _screen.out.print(f"{out}{shows}", highlight=False, soft_wrap=True)
