"""ZOQO as published: weights, noise and step on the quantization grid, every coordinate at once."""

from forq.recipes import EstimatorSettings, LoraSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="ZOQO as published: u uniform on {−1, 0, 1} cells everywhere, one cell a step; random walk in large models",
    source="arXiv 2501.06736, section 3",
    baseline=True,
    settings=Settings(
        move="codes",
        unit="cells",
        estimator=EstimatorSettings(name="two_point", eps=1.0, noise=("uniform_grid:1",)),
        lora=LoraSettings(bits=8),
        rule=RuleSettings(lr=1.0, step="vote"),
    ),
)
