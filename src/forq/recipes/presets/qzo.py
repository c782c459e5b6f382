"""QZO that needs no search: relative probes, one-sided populations, a step from the measured curvature."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="the default: ε, η and C are calibrated; eight directions for nine forwards, half of them shared by rows",
    source="arXiv 2505.13430 (QZO), arXiv 2506.09034 (FZOO's one-sided population); step and mixture: LOG.md",
    settings=Settings(
        move="scales",
        unit="relative",
        estimator=EstimatorSettings(
            name="one_sided", eps="auto", directions=8, noise=("rows:rademacher", "rademacher")
        ),
        rule=RuleSettings(lr="auto", clip="auto", decay="late", checks=3),
    ),
)
