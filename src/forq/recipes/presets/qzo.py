"""The default: directions for each row, and Gauss–Newton steps whose length held-out rows set."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="the default: directions of each row's own, Gauss–Newton steps as long as held-out rows confirm",
    source="arXiv 2505.13430 (QZO), arXiv 2506.09034 (FZOO's one-sided population), arXiv 2606.02857 (GRZO's "
    "directions by example); the step: docs/learning.md",
    settings=Settings(
        move="scales",
        unit="signed",
        blocks="auto",
        estimator=EstimatorSettings(name="by_row", eps="auto", directions=8, noise=("auto",)),
        rule=RuleSettings(lr="auto", clip="off", decay="late", step="newton", newton=0.6, damping="auto"),
    ),
)
