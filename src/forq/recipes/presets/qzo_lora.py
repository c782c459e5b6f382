"""QZO + LoRA: adapters of queries and values for the first half of a run, scales of the other layers for the second."""

from forq.recipes import EstimatorSettings, LoraSettings, Recipe, RuleSettings, Settings

recipe = Recipe(
    summary="QZO + LoRA: first half float adapters on queries and values, second half the scales of all other layers",
    source="arXiv 2505.13430 (QZO + LoRA); estimator, step and calibration are those of qzo-slopes",
    baseline=True,
    settings=Settings(
        move="lora,scales",
        unit="relative",
        estimator=EstimatorSettings(
            name="one_sided", eps="auto", directions=8, noise=("rows:rademacher", "rademacher"), phases=True
        ),
        rule=RuleSettings(lr="auto", clip="auto", decay="late", checks=3),
        lora=LoraSettings(targets=("qv",), alone=True),
    ),
)
