"""What a model needs before its weights are there: memory, arithmetic, and the least time.

    python analyses/plan.py --backbone meta-llama/Llama-3.2-1B --integration pal --seconds 10
    python analyses/plan.py --model demo/pal --seconds 30 --batch 8 --measure-rates

A backbone is a folder with a config.json, a hub id, or one of the paper's, which are known. No
weight is loaded. Time is given only at rates that you state or that are measured on this machine.
With --out, writes memory.csv and work.csv.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch

from palscope._connectors import ConnectorConfig
from palscope._models import PalscopeForConditionalGeneration
from palscope._models.backbones import BACKBONES, ENCODERS, backbone_config, unloaded
from palscope._models.checkpoints import read_config
from palscope._models.finding import find_checkpoint
from palscope._routing import Route, route_from_text, route_to_text
from palscope._sweeps import commands, processes
from palscope.errors import PalscopeError
from palscope.measures._planner import Load, Plan, Rates, measured_rates, plan_for

INTEGRATIONS = {"plits": Route.plits, "lal": Route.lal, "pal": Route.pal}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def main() -> int:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--backbone", help=f"decoder: a folder, a hub id, {', '.join(BACKBONES)}")
    what.add_argument("--model", help="a palscope checkpoint, of which only the config is read")
    parser.add_argument("--integration", choices=list(INTEGRATIONS), help="default: pal")
    parser.add_argument("--route", help="in place of it, e.g. frames:P10.6,summary/3:F16")
    parser.add_argument("--encoder", choices=list(ENCODERS), help="default: openai/whisper-small")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16", help="of all weights")
    parser.add_argument(
        "--bits", type=int, choices=[8, 4], help="of the decoder's linear maps, as bitsandbytes"
    )
    parser.add_argument("--seconds", type=float, required=True, help="of sound in each clip")
    parser.add_argument("--text", type=int, default=40, help="tokens of a prompt (default: 40)")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer (default: 32)")
    parser.add_argument("--batch", type=int, default=1, help="clips at once (default: 1)")
    parser.add_argument(
        "--train", choices=["connector", "connector and decoder"], default="connector"
    )
    parser.add_argument("--measure-rates", action="store_true", help="time at this machine's rates")
    parser.add_argument("--flops-per-second", type=float, help="of large matrix products")
    parser.add_argument("--bytes-per-second", type=float, help="of memory")
    parser.add_argument("--out", type=Path, help="folder for memory.csv and work.csv")
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Plan and print."""
    model = opened(given)
    rates = rates_of(given)
    load = Load(given.seconds, given.text, given.answer, given.batch)
    plan = plan_for(model, load, trained=given.train, bits=given.bits, rates=rates)
    decoder = sum(weight.numel() for weight in model.language_model.parameters())
    print(
        f"{given.backbone or given.model}: {decoder:,} weights in the decoder, "
        f"route {route_to_text(model.route)}, {given.dtype}; {given.batch} × {given.seconds:g} s "
        f"of sound, {given.text} + {given.answer} tokens of text"
    )
    show(plan, rates, given.train)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        plan.memory.to_csv(given.out / "memory.csv", index=False)
        plan.work.to_csv(given.out / "work.csv", index=False)


def opened(given: Namespace) -> PalscopeForConditionalGeneration:
    """The model that is planned for, without weights."""
    dtype = DTYPES[given.dtype]
    if given.model is not None:
        for name in ("integration", "encoder"):
            if getattr(given, name) is not None:
                raise PalscopeError(f"--{name} goes with --backbone; a checkpoint has its own.")
        config = read_config(find_checkpoint(given.model))
        with torch.device("meta"):
            model: Any = PalscopeForConditionalGeneration(config)
        model = model.to(dtype)
        if given.route is not None:
            model.route = route_from_text(given.route)
        return model
    text = backbone_config(given.backbone)
    if given.route is not None and given.integration is not None:
        raise PalscopeError("give --integration or --route, not both.")
    sizes: Any = text
    route = (
        INTEGRATIONS[given.integration or "pal"](sizes.num_hidden_layers)
        if given.route is None
        else route_from_text(given.route)
    )
    return unloaded(
        text,
        route,
        encoder=ENCODERS[given.encoder or "openai/whisper-small"],
        connector=ConnectorConfig.for_route(route),
        dtype=dtype,
    )


def rates_of(given: Namespace) -> Rates | None:
    """The rates that were stated, or measured; None for neither."""
    stated = (given.flops_per_second, given.bytes_per_second)
    if given.measure_rates:
        if any(stated):
            raise PalscopeError("give rates or --measure-rates, not both.")
        device = processes.device() or ("cuda" if torch.cuda.is_available() else "cpu")
        return measured_rates(device, DTYPES[given.dtype])
    if not any(stated):
        return None
    if not all(rate is not None and rate > 0 for rate in stated):
        raise PalscopeError("--flops-per-second and --bytes-per-second go together, above zero.")
    return Rates(*stated)


def show(plan: Plan, rates: Rates | None, trained: str) -> None:
    """Both tables, and what they rest on."""
    names = {"inference": "inference", "training": f"training the {trained}"}
    memory: Any = plan.memory
    for phase, rows in memory.groupby("phase", sort=False):
        print(f"\n{names[phase]}: {rows['bytes'].sum() / 2**30:.2f} GiB")
        for row in rows.itertuples():
            print(f"    {row.part:28} {row.bytes / 2**20:10.1f} MiB")
    if "training" not in set(memory["phase"]):
        print("\ntraining: memory is not counted where a resampler (Q-Former, LFST) is trained")
    print()
    if rates is not None:
        print(
            f"at {rates.flops_per_second / 1e12:.3g} TFLOP/s and "
            f"{rates.bytes_per_second / 1e9:.3g} GB/s, at least:"
        )
    work: Any = plan.work
    for row in work.itertuples():
        least = "" if rates is None else f"  {row.seconds:10.4g} s"
        print(f"    {row.phase:10} {row.flops / 1e9:12.1f} GFLOP  {row.bytes / 1e9:8.2f} GB{least}")
    if rates is None:
        print("no time: give rates, or --measure-rates on the machine that is to run it.")


if __name__ == "__main__":
    raise SystemExit(main())
