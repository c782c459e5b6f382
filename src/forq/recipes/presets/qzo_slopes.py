"""QZO on any objective: relative probes, one-sided populations, one step length that a calibration measures."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="the default for a reward or a loss function: ε, η and C are calibrated; eight directions, nine forwards",
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
