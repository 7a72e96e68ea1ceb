"""Videos decoded in runs of frames. Most video VAEs do so by themselves; some have a switch that is off (LTX, Mochi)."""

from __future__ import annotations

from typing import Any

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject
from autotune.levers.journal import Journal
from autotune.upstream import port
from autotune.upstream.internals import blends_runs, decode_in_runs, pads_runs

__all__ = ["VaeFramewise"]

_SWITCH = "use_framewise_decoding"


class VaeFramewise(Lever):
    """Sets `use_framewise_decoding` on VAEs whose decoding asks for it.

    A VAE that blends runs needs more frames than one run; Mochi's also changes how its convolutions pad
    (autoencoder_kl_mochi.py `_enable_framewise_decoding`).
    """

    name = "vae_framewise"
    summary = (
        "decode a video in runs of frames",
        "decoding memory of one run",
        "slower; faint changes where runs meet",
    )

    def touches(self, name: str, part: Any) -> bool:
        return hasattr(part, "decode")

    def domain(self, subject: Subject) -> Domain:
        vaes = _switchable(subject.pipe)
        if not vaes:
            return Domain((None,), "the VAE has no switch for it that is off")
        frames = subject.workload.size[2]
        shortest = min(_run_frames(vae) for vae in vaes)
        if frames is None:
            return Domain(
                (None, True), f"a run is {shortest} frames, and how many there are shows only when they are decoded"
            )
        if frames <= shortest:
            return Domain((None,), f"a run of this VAE is {shortest} frames, and there are no more")
        return Domain((None, True), f"the video is longer than a run of {shortest} frames")

    def check(self, subject: Subject, value: Any) -> None:
        if value and not _switchable(subject.pipe) and not _switched_on(subject.pipe):
            raise PlanError(
                "vae_framewise=True cannot be applied: the VAE has no switch for it that is off; what works is False"
            )
        if not value and any(map(pads_runs, _switched_on(subject.pipe))):
            raise PlanError(
                "vae_framewise=False cannot be applied: how the VAE's convolutions padded before is not known; "
                "what works is None, or a VAE that is loaded again"
            )

    def read(self, pipe: Any) -> bool:
        return bool(_switched_on(pipe))

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        for vae in _switched_on(subject.pipe) if not value else ():
            journal.set(vae, _SWITCH, False)
        for vae in _switchable(subject.pipe) if value else ():
            for module in vae.modules() if pads_runs(vae) else ():
                if hasattr(module, "pad_mode"):
                    journal.set(module, "pad_mode", module.pad_mode)  # the call below sets another
            journal.set(vae, _SWITCH, True)
            if pads_runs(vae):
                decode_in_runs(vae)


def _switchable(pipe: Any) -> list[Any]:
    """VAEs whose switch is off and is read: it exists on others that ignore it (Cosmos) or need tiles for it (Magvit)."""
    parts = port.networks(pipe).values()
    return [
        vae
        for vae in parts
        if getattr(vae, _SWITCH, None) is False and (pads_runs(vae) or blends_runs(vae)) and _runs(vae)
    ]


def _switched_on(pipe: Any) -> list[Any]:
    """VAEs that decode in runs, because their class does (HunyuanVideo) or somebody has switched it on."""
    parts = port.networks(pipe).values()
    return [vae for vae in parts if getattr(vae, _SWITCH, None) is True and (pads_runs(vae) or blends_runs(vae))]


def _runs(vae: Any) -> bool:
    """Not so Mochi's of diffusers 0.42: its convolutions were made to pad nothing, and switched they pad nothing at all."""
    return all(
        m.conv.padding == m.const_padding_conv3d for m in vae.modules() if pads_runs(vae) and hasattr(m, "pad_mode")
    )


def _run_frames(vae: Any) -> int:
    """Frames of one run."""
    if blends_runs(vae):
        return int(vae.tile_sample_min_num_frames)
    return int(vae.num_latent_frames_batch_size * vae.temporal_compression_ratio)
