"""QZO with directions that all rows of a batch share."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="as qzo, with eight directions that all rows share; what qzo does where rows have none of their own",
    source="arXiv 2505.13430 (QZO), arXiv 2506.09034 (FZOO's one-sided population); the step: docs/learning.md",
    settings=Settings(
        move="scales",
        unit="relative",
        blocks="auto",
        estimator=EstimatorSettings(name="one_sided", eps="auto", directions=8, noise=("auto",)),
        rule=RuleSettings(lr="auto", clip="off", decay="late", step="newton", newton=0.6, damping="auto"),
    ),
)
