"""The call that a model's card recommends, as a workload: what people who type only the model's name mean. Needs no torch."""

from __future__ import annotations

from typing import Any

from autotune.records.described import picture
from autotune.records.workload import SCALES, Workload
from autotune.zoo.recipes import Recipe

__all__ = ["card_call"]

# Pipelines whose `guidance_scale` above 1 is an input of the model, so that no call without a negative prompt is guided.
_EMBEDDED = ("Flux", "HunyuanVideo", "SanaSprint", "QwenImage")
# Pipelines whose cards leave the scale where it is: to the last frame's (SVD) or to the guider.
_GUIDED = ("StableVideoDiffusion", "HunyuanVideo15")
_PICTURES = ("image", "control_image", "mask_image")


def card_call(recipe: Recipe) -> Workload:
    """The recommended call of a zoo model.

    A true scale (`true_cfg_scale`) above 1 is guidance, since cards that recommend one give a negative prompt beside it.

    >>> from autotune.zoo.recipes import find
    >>> card_call(find("pixart-sigma")).steps, card_call(find("flux1-dev")).guidance
    (20, None)
    """
    defaults = recipe.defaults
    if defaults is None:
        return Workload()
    arguments: dict[str, Any] = dict(getattr(defaults, "arguments", {}))
    true_scale = arguments.get("true_cfg_scale")
    family = recipe.pipeline_class or ""
    if family.startswith(_GUIDED):
        guided: bool | None = True
    elif true_scale is not None:
        guided = true_scale > 1
    else:
        guided = None if defaults.guidance and family.startswith(_EMBEDDED) else defaults.guidance
    return Workload(
        height=defaults.height,
        width=defaults.width,
        frames=defaults.frames,
        steps=defaults.steps,
        guidance=guided,
        inputs={name: picture(name, arguments[name]) for name in _PICTURES if name in arguments},
        arguments={k: v for k, v in arguments.items() if k not in (*SCALES, *_PICTURES)},
    )
