"""QZO as its paper runs it: absolute Gaussian probes of the scales, constant step, clipped derivative."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="QZO with the paper's own settings: ε 1e-3 absolute, η 1e-7, C 100, Gaussian z",
    source="arXiv 2505.13430, section 4 and appendix; floor 1e-7 from the released code",
    baseline=True,
    settings=Settings(
        move="scales",
        unit="absolute",
        estimator=EstimatorSettings(name="two_point", eps=1e-3, noise=("gaussian",)),
        rule=RuleSettings(lr=1e-7, clip=100.0),
    ),
)
