"""QZO with directions of each row's own, for short runs on text."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="as qzo, but most directions are each row's own: more of them in a forward, each with more noise",
    source="arXiv 2505.13430 (QZO), arXiv 2606.02857 (GRZO's directions by example); the step: docs/learning.md",
    settings=Settings(
        move="scales",
        unit="signed",
        estimator=EstimatorSettings(name="by_row", eps="auto", directions=8, noise=("rows:rademacher", "rademacher")),
        rule=RuleSettings(lr="auto", clip="off", decay="late", step="newton", newton=0.6),
    ),
)
