"""ZOQO with a calibrated size: a few codes move by whole cells, by the sign of a loss difference.

A step of one cell cannot be made shorter, and of a million coordinates that all take it next to none was told where to
go: the published law is a random walk (`docs/grids.md`). Fewer coordinates a step make the step shorter.
"""

from forq.recipes import CELLS, EstimatorSettings, LoraSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="ZOQO, sized: a cell at as many coordinates as the calibration says, by the sign of a loss difference",
    source="arXiv 2501.06736, section 3; the calibrated size is ours",
    settings=Settings(
        move="codes",
        unit="cells",
        estimator=EstimatorSettings(name="two_point", eps=1.0, noise=CELLS),
        rule=RuleSettings(lr="auto", decay="linear", step="vote", newton=0.75),
        lora=LoraSettings(bits=8),
    ),
)
