"""What a command is asked about: the call, the model with what is added to it, and the machine where it is not this one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.errors import PlanError, WorkloadError

if TYPE_CHECKING:
    from autotune.records.workload import Workload

__all__ = ["CallOptions", "SetupOptions"]

_CALL, _SETUP = "The call to plan for", "The model as it is loaded, and the machine where it is not this one"


def _of_call(*flags: str, **more: Any) -> Any:
    return typer.Option(*flags, rich_help_panel=_CALL, **more)


def _of_setup(*flags: str, **more: Any) -> Any:
    return typer.Option(*flags, rich_help_panel=_SETUP, **more)


@dataclass(frozen=True)
class CallOptions:
    """One call of the pipeline; what is not said is as the model's card recommends, or else as the pipeline has it."""

    height: Annotated[int | None, _of_call("--height", min=1, help="Pixels.")] = None
    width: Annotated[int | None, _of_call("--width", min=1, help="Pixels.")] = None
    frames: Annotated[int | None, _of_call("--frames", min=1, help="Frames of a video.")] = None
    steps: Annotated[int | None, _of_call("--steps", min=1, help="Denoising steps.")] = None
    batch: Annotated[int, _of_call("--batch", min=1, help="Images or videos per call.")] = 1
    guidance: Annotated[
        bool | None,
        _of_call(
            "--guidance/--no-guidance",
            help="Classifier-free guidance: the denoiser sees the negative prompt too, at twice the cost.",
        ),
    ] = None
    guidance_scale: Annotated[
        float | None,
        _of_call("--guidance-scale", help="The pipeline's guidance_scale: 3.5, or 0 for a distilled model."),
    ] = None
    negative_prompt: Annotated[
        str | None, _of_call("--negative-prompt", metavar="TEXT", help="That there is one; its words do not matter.")
    ] = None
    prompt_tokens: Annotated[
        int | None, _of_call("--prompt-tokens", min=1, help="Length of the prompt, for text encoders that pad to none.")
    ] = None
    image: Annotated[
        list[str] | None, _of_call("--image", metavar="WIDTHxHEIGHT", help="An input image by its size. Repeatable.")
    ] = None
    mask: Annotated[
        list[str] | None, _of_call("--mask", metavar="WIDTHxHEIGHT", help="A mask by its size. Repeatable.")
    ] = None
    video: Annotated[
        str | None, _of_call("--video", metavar="WIDTHxHEIGHTxFRAMES", help="An input video by its size.")
    ] = None
    strength: Annotated[
        float | None, _of_call("--strength", help="Share of the steps that an image-to-image call makes: 0 to 1.")
    ] = None
    argument: Annotated[
        list[str] | None,
        _of_call(
            "--argument",
            metavar="NAME=VALUE",
            help="Any other argument of the pipeline's call: true_cfg_scale=4, control_image=1024x1024. Repeatable.",
        ),
    ] = None

    @property
    def workload(self) -> Workload:
        """The call, with what was not said left open.

        Raises:
            WorkloadError: a value that no call has.

        >>> CallOptions(image=["1024x1024"], guidance_scale=4.0).workload.inputs
        {'image': '1024x1024 RGB'}
        """
        from autotune.records.described import picture
        from autotune.records.workload import Workload

        arguments, inputs = _arguments(self.argument or ())
        if self.guidance_scale is not None:
            arguments["guidance_scale"] = _within("--guidance-scale", self.guidance_scale, 0, 100, "3.5")
            if self.guidance is not None:
                wanted = "--guidance" if self.guidance else "--no-guidance"
                raise WorkloadError(
                    f"--guidance-scale {self.guidance_scale:g} decides about guidance; leave out {wanted}"
                )
        if self.strength is not None:
            arguments["strength"] = _within("--strength", self.strength, 0, 1, "0.6")
        if self.negative_prompt is not None:
            arguments["negative_prompt"] = "text"
        for name, said in {"image": self.image, "mask": self.mask}.items():
            if said:
                one_or_all: Any = said[0] if len(said) == 1 else said
                inputs[name] = picture(name, one_or_all, mode="L" if name == "mask" else "RGB")
        if self.video is not None:
            inputs["video"] = picture("video", self.video)
        return Workload(
            height=self.height,
            width=self.width,
            frames=self.frames,
            steps=self.steps,
            batch=self.batch,
            guidance=self.guidance,
            prompt_tokens=self.prompt_tokens,
            arguments=arguments,
            inputs=inputs,
        )


@dataclass(frozen=True)
class SetupOptions:
    """How the model is loaded and what is added to it, and versions and settings where it is to run."""

    loaded_as: Annotated[
        list[str] | None,
        _of_setup(
            "--loaded-as",
            metavar="[COMPONENT=]PRECISION",
            help="Precision in which it is loaded: fp16, or vae=fp32 for one component. Repeatable.",
        ),
    ] = None
    controlnet: Annotated[
        list[str] | None,
        _of_setup("--controlnet", metavar="NAME", help="A ControlNet to add, by zoo name or folder. Repeatable."),
    ] = None
    lora_rank: Annotated[
        int | None, _of_setup("--lora-rank", min=1, help="Rank of a LoRA on the denoiser's attention layers.")
    ] = None
    ip_adapter: Annotated[
        str | None, _of_setup("--ip-adapter", metavar="NAME", help="An IP-Adapter to add, by zoo name.")
    ] = None
    torch: Annotated[
        str | None,
        _of_setup("--torch", metavar="VERSION", help="Version of torch on a machine that is not here: 2.9.0."),
    ] = None
    allocator: Annotated[
        str | None,
        _of_setup(
            "--allocator",
            metavar="SETTINGS",
            help="PYTORCH_CUDA_ALLOC_CONF of a machine that is not here: expandable_segments:True.",
        ),
    ] = None

    @property
    def question(self) -> dict[str, Any]:
        """These as arguments of a `Question`.

        Raises:
            PlanError: a precision that is stated twice, or for a component without a name.

        >>> SetupOptions(loaded_as=["fp16", "vae=fp32"], lora_rank=16).question["loaded_as"]
        {'default': 'fp16', 'vae': 'fp32'}
        """
        return {
            "loaded_as": _precision(self.loaded_as or ()),
            "controlnets": tuple(self.controlnet or ()),
            "lora_rank": self.lora_rank,
            "ip_adapter": self.ip_adapter,
            "torch_version": self.torch,
            "allocator": self.allocator,
        }


def _precision(said: list[str] | tuple[()]) -> str | Mapping[str, str] | None:
    """One precision for all, or one by component beside a default."""
    named: dict[str, str] = {}
    for text in said:
        component, equals, precision = (part.strip() for part in text.rpartition("="))
        if not precision or (equals and not component):
            raise PlanError(f"--loaded-as {text!r} is not a precision; write for example fp16 or vae=fp32")
        if (component or "default") in named:
            raise PlanError(f"--loaded-as states the precision of {component or 'all components'} twice; give one")
        named[component or "default"] = precision
    return named["default"] if named.keys() == {"default"} else named or None


_OWN_OPTIONS = {
    "height": "--height", "width": "--width", "num_inference_steps": "--steps",
    "num_frames": "--frames", "frames": "--frames", "video_length": "--frames",
    "num_images_per_prompt": "--batch", "num_videos_per_prompt": "--batch", "guidance_scale": "--guidance-scale",
    "strength": "--strength", "image": "--image", "mask_image": "--mask", "video": "--video",
}  # fmt: skip


def _arguments(pairs: list[str] | tuple[()]) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments of the call by name, and apart from them the pictures that are given by their sizes."""
    from autotune.records.described import Described

    arguments: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not name.isidentifier() or not text:
            raise WorkloadError(f"--argument {pair!r} is not NAME=VALUE; write for example true_cfg_scale=4")
        if name in _OWN_OPTIONS:
            raise WorkloadError(
                f"--argument {pair!r}: {name} has an option of its own; write {_OWN_OPTIONS[name]} {text}"
            )
        if name in arguments or name in inputs:
            raise WorkloadError(f"--argument gives {name} twice; give it once")
        described = Described.read(text)
        if described is None:
            arguments[name] = _value(name, text)
        else:
            inputs[name] = str(described)
    return arguments, inputs


def _value(name: str, text: str) -> Any:
    """A number, true, false, none, a list of those in JSON, or else the text."""
    if text.casefold() in {"true", "false", "none", "null"}:
        return {"true": True, "false": False}.get(text.casefold())
    try:
        value = json.loads(text)
    except ValueError:
        return "text" if "prompt" in name else text
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float | bool | None) for one in numbers):
        raise WorkloadError(f"--argument {name}={text}: a value is a number, a word, or a list of those")
    if any(isinstance(one, float) and not isfinite(one) for one in numbers):
        raise WorkloadError(f"--argument {name}={text} is not a finite number")
    return value


def _within(option: str, value: float, least: float, most: float, example: str) -> float:
    if not least <= value <= most:
        raise WorkloadError(
            f"{option} {value:g} is not between {least:g} and {most:g}; write for example {option} {example}"
        )
    return value
