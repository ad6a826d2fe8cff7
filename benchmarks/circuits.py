"""What circuits cost, side by side in one run.

    python -m benchmarks.circuits --model demo/pal --out benchmarks/circuits.json

On one pair of about 3 s, in stretches of 1 s: a plain forward pass of the clean prompt, a forward
and a backward pass, EAP, EAP-IG with 5 steps, a run of the circuit of 1 % of all edges, and exact
effects of some edges by the batched engine against one forward pass an edge. Beside them, where
TransformerLens's `attribution_patch` runs (no grouped queries, no sound): its edges and palscope's
on one random model of 12 layers. All hear their clips encoded anew, as a user's call does. Timings
are medians of interleaved repeats; memory is the process's peak, model included.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformer_lens.tools.analysis import attribution_patch
from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig

from benchmarks.core import header, medians, write
from palscope import Route, load
from palscope._circuits.build import pair_graph, run_graph
from palscope._circuits.exact import exact_effects
from palscope._circuits.gradients import attributed, eap, eap_ig
from palscope._circuits.groups import position_groups
from palscope._circuits.observed import observe
from palscope._circuits.runs import CircuitRuns
from palscope._circuits.selection import circuit_of, ranked
from palscope._circuits.writes import writes_of
from palscope.measures import Answers
from palscope.pairs import bundled_pairs

EDGES = 256
"""Exact effects of so many are timed."""


def main() -> int:
    """Time both, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo/pal")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    report = header("cpu") | {"model": given.model}
    report |= of_a_pair(given.model, given.repeats)
    report |= {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    report |= beside_transformer_lens(given.repeats)
    for name, value in report.items():
        print(name, value)
    if given.out is not None:
        write(report, given.out)
    return 0


def of_a_pair(name: str, repeats: int) -> dict[str, Any]:
    """Of the bundled pair that is nearest to 3 s."""
    model = load(name)
    pair = min(bundled_pairs(), key=lambda each: abs(each.seconds - 3))
    answers = Answers.of(model.processor, pair.clean_answer, pair.corrupt_answer)
    clean, corrupt = (model.inputs(pair.question, clip) for clip in (pair.clean, pair.corrupt))
    graph = pair_graph(model, pair, seconds=1.0)
    behind = answers.behind(clean)
    order = ranked(eap(model, clean, corrupt, graph, answers=answers))
    runs = CircuitRuns(model, clean, corrupt, graph, answers=answers)
    circuit = circuit_of(graph, order[: graph.n_edges // 100])
    drawn = np.random.default_rng(0).permutation(order[: graph.n_edges // 100])[:EDGES].tolist()
    both: Any = {"answers": answers}

    @torch.no_grad()
    def forward() -> Any:
        return model(behind, logits_to_keep=1)

    times = medians(
        {
            "forward": forward,
            "forward and backward": lambda: observe(model, behind, graph, answers, gradients=True),
            "EAP": lambda: eap(model, clean, corrupt, graph, **both),
            "EAP-IG": lambda: eap_ig(model, clean, corrupt, graph, steps=5, **both),
            "circuit of 1 %": lambda: runs.metric(circuit),
            "exact": lambda: exact_effects(model, clean, corrupt, graph, edges=drawn, **both),
        },
        repeats,
    )
    return {
        "pair": pair.name,
        "edges": graph.n_edges,
        "seconds": times,
        "eap_to_forward_and_backward": times["EAP"] / times["forward and backward"],
        "eap_ig_to_forward": times["EAP-IG"] / times["forward"],
        "circuit_to_forward": times["circuit of 1 %"] / times["forward"],
        "one_pass_an_edge_to_exact": EDGES * times["forward"] / times["exact"],
    }


def beside_transformer_lens(repeats: int) -> dict[str, Any]:
    """Edges of text alone, every token a group, of a random model without grouped queries."""
    from tests import vocabulary
    from tests.hooks.conftest import make_hooked

    sizes: Any = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "head_dim": 32,
        "num_hidden_layers": 12,
    }
    heads: Any = {"num_attention_heads": 8, "num_key_value_heads": 8}
    model = make_hooked(vocabulary.tokenizer(), Route.plits(12), **sizes, **heads)
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(3, 40, (1, 12)))
    other = tokens.clone()
    other[0, 4] = 41
    config = EdgeAttributionConfig(granularity="edge")
    inputs = [
        {"input_ids": each, "attention_mask": torch.ones_like(each)} for each in (tokens, other)
    ]
    answers = Answers((), 5, 7)

    def theirs() -> Any:
        return attribution_patch(model, tokens, other, lambda x: x[0, -1, 5] - x[0, -1, 7], config)

    def ours() -> Any:
        layout = model.layout(inputs[0])
        graph = run_graph(model, layout, position_groups(layout, words=[[c] for c in range(11)]))
        here = observe(model, inputs[1], graph, answers, gradients=True)
        there = observe(model, inputs[0], graph, answers)
        return attributed(
            model, graph, here, writes_of(model, graph, there) - writes_of(model, graph, here)
        )

    times = medians({"theirs": theirs, "ours": ours}, repeats)
    return {"transformer_lens": times, "ours_to_transformer_lens": times["ours"] / times["theirs"]}


if __name__ == "__main__":
    raise SystemExit(main())
