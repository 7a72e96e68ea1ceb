"""`autotune estimate`: bytes by phase and by component for one plan that is written out."""

from __future__ import annotations

from autotune.cli import levers, options
from autotune.cli.call import CallOptions, SetupOptions
from autotune.cli.groups import with_groups

__all__ = ["estimate"]


@with_groups
def estimate(
    model: options.Model,
    *,
    gpu: options.Gpu = None,
    device: options.Device = None,
    call: CallOptions,
    setup: SetupOptions,
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
    as_json: options.AsJson = False,
) -> None:
    """What one plan costs: bytes by phase and by component."""
    from autotune.cli.payload import estimated_json, print_json
    from autotune.cli.progress import watched
    from autotune.cli.show import page, show_estimated
    from autotune.flow.ask import Question, job_of, place_of
    from autotune.flow.budget import budget_for
    from autotune.records.front import Candidate
    from autotune.report.explanation import Explanation

    finds_its_tile = vae_tiling == levers.BY_ITSELF
    plan = levers.plan_from(
        {
            "dtype": dtype, "tf32": tf32, "channels_last": channels_last, "attention": attention,
            "feed_forward_chunks": feed_forward_chunks, "batch_split": batch_split, "vae_slicing": vae_slicing,
            "vae_tiling": None if finds_its_tile else vae_tiling, "vae_framewise": vae_framewise, "compile": compile,
            "offload": offload, "text_encoders": text_encoders,
        }
    )  # fmt: skip
    with watched(model, silent=as_json) as report:
        question = Question(model, gpu=gpu, device=device, workload=call.workload, progress=report, **setup.question)
        from autotune.flow.estimating import estimate_of, largest_tile_px  # with torch, once the question stands

        place, host = place_of(question)
        job = job_of(question, place)
        if finds_its_tile:
            plan = plan.model_copy(update={"vae_tiling": largest_tile_px(job)})
        estimate, smallest_cap_bytes = estimate_of(job, plan)
    explained = Explanation(
        state="planned",
        model=job.model.name,
        workload=job.largest,
        device=place,
        host=host,
        cap_bytes=budget_for(place, host, max_vram=None, max_ram=None).vram_bytes,
        chosen=Candidate(plan=plan, estimate=estimate),
    )
    if as_json:
        print_json(estimated_json(explained, smallest_cap_bytes))
    else:
        show_estimated(page(), explained, smallest_cap_bytes)
