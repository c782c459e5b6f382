"""QZO that needs no search: Gauss–Newton steps in the subspace of a step's directions."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="the default: Gauss–Newton in the subspace of eight directions, as far as left-out rows confirm",
    source="arXiv 2505.13430 (QZO), arXiv 2506.09034 (FZOO's one-sided population); the step: docs/learning.md",
    settings=Settings(
        move="scales",
        unit="relative",
        estimator=EstimatorSettings(
            name="one_sided", eps="auto", directions=8, noise=("rows:rademacher", "rademacher")
        ),
        rule=RuleSettings(lr="auto", clip="off", decay="late", step="newton", newton=0.6),
    ),
)
