"""QuZO: one Gaussian direction rounded twice at random, once to probe and once to step, both on the grid.

The direction lives on few coordinates, the same ones for both. Spread over all of them and smaller than a cell, the two
roundings would hardly meet, and what a step moved would not be what its probe told of.
"""

from forq.recipes import EstimatorSettings, LoraSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="QuZO: probe and step are two independent roundings of one Gaussian direction; the step rounds at random",
    source="arXiv 2502.12346, section 4; the spread and η are calibrated, as zoqo's radius",
    baseline=True,
    settings=Settings(
        move="codes",
        unit="cells",
        estimator=EstimatorSettings(
            name="two_point", eps=1.0, noise=("rounded:1:auto",), step_noise=("rounded:2:auto",)
        ),
        rule=RuleSettings(lr="auto", decay="late"),
        lora=LoraSettings(bits=8),
    ),
)
