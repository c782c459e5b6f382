"""QZO that needs no search."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="the default",
    source="arXiv 2505.13430 (QZO), arXiv 2506.09034 (FZOO)",
    settings=Settings(
        move="scales",
        unit="relative",
        estimator=EstimatorSettings(name="two_point", eps=2e-2),
        rule=RuleSettings(lr=1e-3),
    ),
)
