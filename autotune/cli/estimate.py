"""`autotune estimate`: bytes by phase and by component for one plan that is written out."""

from __future__ import annotations

from dataclasses import replace

from autotune.cli import levers, options

__all__ = ["estimate"]


def estimate(
    model: options.Model,
    *,
    gpu: options.Gpu = None,
    device: options.Device = None,
    max_vram: options.MaxVram = None,
    max_ram: options.MaxRam = None,
    height: options.Height = None,
    width: options.Width = None,
    batch: options.Batch = 1,
    frames: options.Frames = None,
    steps: options.Steps = None,
    dtype: levers.Dtype = None,
    tf32: levers.Tf32 = False,
    channels_last: levers.ChannelsLast = False,
    attention: levers.Attention = None,
    feed_forward_chunks: levers.FeedForwardChunks = None,
    batch_split: levers.BatchSplit = None,
    vae_slicing: levers.VaeSlicing = False,
    vae_tiling: levers.VaeTiling = None,
    vae_framewise: levers.VaeFramewise = False,
    compile: levers.Compile = None,  # noqa: A002 - the lever's name is the option's
    offload: levers.Offload = None,
    text_encoders: levers.TextEncoders = None,
    keep: options.Keep = None,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> None:
    """What one plan costs; with -v its bytes by phase and by component."""
    from autotune.flow.question import Question

    finds_its_tile = vae_tiling == levers.BY_ITSELF
    plan = levers.plan_from(
        {
            **options.kept(keep),
            "dtype": dtype, "tf32": tf32 or None, "channels_last": channels_last or None, "attention": attention,
            "feed_forward_chunks": feed_forward_chunks, "batch_split": batch_split, "vae_slicing": vae_slicing or None,
            "vae_tiling": None if finds_its_tile else vae_tiling, "vae_framewise": vae_framewise or None,
            "compile": compile, "offload": offload, "text_encoders": text_encoders,
        }
    )  # fmt: skip
    workload = options.workload_from(height=height, width=width, batch=batch, frames=frames, steps=steps)
    question = Question(model, gpu=gpu, device=device, max_vram=max_vram, max_ram=max_ram, workload=workload)
    from autotune.cli.payload import estimated_json, print_json
    from autotune.cli.show import page, show_estimated, show_lines
    from autotune.flow.estimating import written_out
    from autotune.report.progress import watched

    with watched(model, silent=as_json) as report:
        explained, smallest_cap_bytes = written_out(
            replace(question, progress=report), plan, finds_its_tile=finds_its_tile
        )
    if as_json:
        print_json(estimated_json(explained, smallest_cap_bytes))
        return
    console = page()
    if verbose:
        show_estimated(console, explained, smallest_cap_bytes)
    show_lines(console, explained, hint="" if verbose else "by component: -v")
