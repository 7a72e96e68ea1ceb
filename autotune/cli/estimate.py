"""`autotune estimate`: bytes by phase and by component for one plan that is written out."""

from __future__ import annotations

from dataclasses import replace

from autotune.cli import levers, options
from autotune.cli.call import CallOptions, SetupOptions
from autotune.cli.groups import with_groups

__all__ = ["estimate"]


@with_groups
def estimate(
    model: options.Model,
    *,
    place: options.PlaceOptions,
    call: CallOptions,
    setup: SetupOptions,
    dtype: levers.Dtype = None,
    tf32: levers.Tf32 = None,
    channels_last: levers.ChannelsLast = None,
    attention: levers.Attention = None,
    feed_forward_chunks: levers.FeedForwardChunks = None,
    batch_split: levers.BatchSplit = None,
    vae_slicing: levers.VaeSlicing = None,
    vae_tiling: levers.VaeTiling = None,
    vae_framewise: levers.VaeFramewise = None,
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
            "dtype": dtype, "tf32": tf32, "channels_last": channels_last, "attention": attention,
            "feed_forward_chunks": feed_forward_chunks, "batch_split": batch_split, "vae_slicing": vae_slicing,
            "vae_tiling": None if finds_its_tile else vae_tiling, "vae_framewise": vae_framewise,
            "compile": compile, "offload": offload, "text_encoders": text_encoders,
        },
        kept=options.kept(keep),
    )  # fmt: skip
    question = Question(model, workload=call.workload, **place.question, **setup.question)
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
