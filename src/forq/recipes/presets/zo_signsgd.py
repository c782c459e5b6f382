"""ZO-SignSGD: the mean over a few directions, and of it only the sign, coordinate by coordinate."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="ZO-SignSGD: four two-sided directions averaged, then every coordinate takes a step of one length",
    source="Liu et al., ICLR 2019, algorithm 1 (the ancestor of arXiv 2501.06736); the numbers are ours",
    baseline=True,
    settings=Settings(
        move="scales",
        unit="relative",
        estimator=EstimatorSettings(name="two_point", eps=1e-2, directions=4),
        rule=RuleSettings(lr=1e-3, step="sign", decay="late"),
    ),
)
