"""QES: eight integer directions, z-scored losses, and rounding errors carried to later steps."""

from forq.recipes import CELLS, EstimatorSettings, LoraSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="QES: eight directions of whole cells, z-scored, and error feedback by replay of the last 20 steps' seeds",
    source="arXiv 2602.03120; a direction's size is calibrated as zoqo's",
    settings=Settings(
        move="codes",
        unit="cells",
        estimator=EstimatorSettings(name="one_sided", eps=1.0, directions=8, noise=CELLS),
        rule=RuleSettings(lr="auto", shape="zscore", feedback=20, decay="late"),
        lora=LoraSettings(bits=8),
    ),
)
