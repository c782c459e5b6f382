"""MeZO: two-point steps on every float tensor, the baseline everybody knows."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="MeZO on a float model: every tensor moves, ε 1e-3, η 1e-6, Gaussian z",
    source="arXiv 2305.17333, algorithm 1 and table 15",
    baseline=True,
    settings=Settings(
        move="all-float",
        unit="free",
        estimator=EstimatorSettings(name="two_point", eps=1e-3, noise=("gaussian",)),
        rule=RuleSettings(lr=1e-6),
    ),
)
