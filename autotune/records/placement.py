"""Where weights wait, in which pieces they come to the card, and when they go: by component, as data.

A `Plan` has short words for people ("model", "group:block+stream"); `placed` makes a `Placement` of them, and whatever has to
know where weights are reads that. Mirrors diffusers 0.42 `enable_model_cpu_offload` and `enable_sequential_cpu_offload`
(pipelines/pipeline_utils.py) and `apply_group_offloading` (hooks/group_offloading.py), the hooks of accelerate 1.15
(`CpuOffload.pre_forward`), and levers/text_encoders.py.
"""

from __future__ import annotations

from typing import Literal

from autotune.records.base import Record
from autotune.records.model import Component, Model
from autotune.records.plan import GroupOffload, Plan, group_offload

__all__ = ["Berth", "Piece", "Placement", "placed"]

Piece = Literal["component", "block", "leaf"]


class Berth(Record):
    """One component's weights.

    >>> Berth().stays, Berth(waits="ram").stays
    (True, False)
    """

    waits: Literal["card", "ram", "pinned", "cpu"] = "card"
    """Where they are while they are not needed; "pinned" in page-locked RAM, "cpu" where the component also runs."""
    piece: Piece = "component"
    """How much of them comes at once: all, a block of a list of blocks, or a module with weights of its own."""
    ahead: int = 0
    """How many pieces are brought before their turn, on a stream of their own."""
    pins_late: bool = False
    """Whether they are pinned as they are sent, not beforehand: less RAM, slower."""
    leaves_before: tuple[str, ...] = ()
    """Components whose call sends them away first."""
    leaves_at_end: bool = False
    """Whether the end of the call sends them away."""
    empties_cache: bool = False
    """Whether the allocator's cache is emptied with every tensor that is brought."""
    keeps_buffers: bool = False
    """Whether buffers stay on the card."""

    @property
    def stays(self) -> bool:
        """On the card from the first call to the last."""
        return self.waits == "card"

    @property
    def comes_whole(self) -> bool:
        """Brought when the component is called, all at once."""
        return self.waits in {"ram", "pinned"} and self.piece == "component"

    @property
    def streams(self) -> bool:
        """Brought piece by piece while the component runs."""
        return self.waits in {"ram", "pinned"} and self.piece != "component"


class Placement(Record):
    """Every component's, in the pipeline's order."""

    berths: dict[str, Berth]

    def of(self, component: str) -> Berth:
        """A component's; the pipeline's own code has no weights, and none that move."""
        return self.berths.get(component, _CARD)

    @property
    def resident(self) -> frozenset[str]:
        """Components that are on the card all the time."""
        return frozenset(name for name, berth in self.berths.items() if berth.stays)


_CARD = Berth()


def placed(model: Model, plan: Plan) -> Placement:
    """Where the plan places the components of that model. `plan` says what is as found, too (`Plan.over`).

    >>> from autotune.records.model import Component, Model
    >>> parts = [Component(name=n, role=r, class_name="", parameters=1, bytes_by_dtype={}) for n, r in
    ...          (("text_encoder", "text_encoder"), ("unet", "denoiser"))]
    >>> order = ("text_encoder", "unet")
    >>> facts = Model(name="", pipeline_class="", components=parts, structural_key="", offload_sequence=order)
    >>> placed(facts, Plan(offload="model")).of("text_encoder").leaves_before
    ('unet',)
    """
    return Placement(berths={part.name: _berth(model, plan, part) for part in model.components})


def _berth(model: Model, plan: Plan, part: Component) -> Berth:
    if part.role == "text_encoder" and plan.text_encoders == "cpu":
        return Berth(waits="cpu")
    if part.role == "text_encoder" and plan.text_encoders == "leave":
        return Berth(waits="ram", leaves_before=tuple(sorted(model.denoisers)))
    if plan.offload == "model":
        return _swapped(model, part.name)
    if plan.offload == "sequential":
        excluded = part.name in model.excluded_from_offload
        return _CARD if excluded else Berth(waits="ram", piece="leaf", empties_cache=True, keeps_buffers=True)
    group = group_offload(plan.offload)
    return _CARD if group is None or "group_offload" not in part.capabilities else _grouped(group, part)


def _swapped(model: Model, name: str) -> Berth:
    """The previous of the sequence leaves before the next arrives; one outside the sequence stays to the end of the call.

    An excluded one is on the card for good, but one that is in the sequence is swapped all the same (Kandinsky's prior).
    """
    names = [part.name for part in model.components]
    chain = [one for one in model.offload_sequence or () if one in names]
    if name not in chain:
        excluded = name in model.excluded_from_offload
        return _CARD if excluded else Berth(waits="ram", leaves_at_end=True)
    following = chain[chain.index(name) + 1 :][:1]
    return Berth(waits="ram", leaves_before=tuple(following), leaves_at_end=True)


def _grouped(group: GroupOffload, part: Component) -> Berth:
    """Text encoders have no list of blocks of their own and some VAEs name none, so they go by leaf; a VAE gets no stream: the
    order of its layers is learned at the first call, and with tiles that call is not like the others (modeling_utils.py
    enable_group_offload)."""
    by_block = group.offload_type == "block_level" and part.role != "text_encoder"
    by_block = by_block and "group_offload_by_block" in part.capabilities
    piece: Piece = "block" if by_block else "leaf"
    if not group.use_stream or part.role == "vae":
        return Berth(waits="ram", piece=piece)
    return Berth(waits="pinned", piece=piece, ahead=1, pins_late=group.low_cpu_mem_usage)
