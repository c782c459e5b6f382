"""GRZO on quantization scales: every row of a batch has a direction of its own, steps have a plain rate."""

from forq.recipes import EstimatorSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="GRZO: signs of every row's own, slopes in units of their spread; qzo without Gauss-Newton",
    source="arXiv 2606.02857, algorithm 1, on scales in place of float weights; the numbers are ours",
    settings=Settings(
        move="scales",
        unit="signed",
        estimator=EstimatorSettings(name="grzo", eps=1e-2),
        rule=RuleSettings(lr=3e-2),
    ),
    baseline=True,
)
