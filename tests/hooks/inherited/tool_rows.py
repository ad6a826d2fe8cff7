"""Rows of patching, `transformer_lens.tools`, and whatever else takes a model."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import tempfile
import warnings
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens import SVDInterpreter, evals, head_detector, patching
from transformer_lens.patching import make_df_from_ranges
from transformer_lens.tools import analysis, training
from transformer_lens.tools.analysis import attribution_patching, interchange, jacobian_lens
from transformer_lens.utilities import exploratory_utils

from palscope.errors import HookError
from tests.hooks.inherited.bench import Bench
from tests.hooks.inherited.bridge_rows import same
from tests.hooks.inherited.rows import Row, refused, row

CLOSE = {"atol": 2e-4, "rtol": 1e-3}
MIDDLE = "blocks.1.hook_resid_post"
STEP = 1e-2
"""Of the way from a corrupt activation to the clean one."""

SWEEPS = sorted(n for n in vars(patching) if n.startswith("get_act_patch") and "direct" not in n)


def two_cells(ranges: Any, names: Any) -> Any:
    """Of a sweep, the last cell of layer 1 and the last of all."""
    every = make_df_from_ranges(ranges, names)
    return pd.concat([every[every.iloc[:, 0] == 1].iloc[-1:], every.iloc[-1:]])


def silence() -> Any:
    """Within, no bars of progress."""
    return contextlib.redirect_stderr(io.StringIO())


def by_position(name: str) -> bool:
    whole = ("attn_out", "block_every", "mlp_out", "resid_mid", "resid_pre")
    ends = ("_pos", "by_pos_every", "activation_patch", *whole)
    return name.endswith(ends) and not name.endswith("all_pos")


@torch.no_grad()
def patched(bench: Bench, name: str) -> None:
    """Patched with itself nothing changes; with the clean run, the top restores it."""
    clean, _ = bench.caches
    function: Any = getattr(patching, name)
    more: dict[str, Any] = {}
    if name == "generic_activation_patch":
        setter = patching.layer_pos_patch_setter
        more = {"patch_setter": setter, "activation_name": "resid_pre"}
        more["index_axis_names"] = ("layer", "pos")
    with bench.attach_clips() as (_, corrupt), pytest.MonkeyPatch.context() as patch, silence():
        patch.setattr(patching, "make_df_from_ranges", two_cells)
        start = bench.metric(bench.model(corrupt))
        call = lambda cache: function(bench.model, corrupt, cache, bench.metric, **more)  # noqa: E731
        if bench.kind == "lal" and by_position(name):
            with pytest.raises(HookError, match="some do not run"):
                call(clean)
            return
        table = call(clean)
    goal = bench.metric(bench.logits)
    done = table[table != 0]
    assert torch.isfinite(done).all() and (done - start).abs().max() > 1e-5
    assert abs(start - goal) > 1e-3
    if "resid_pre" in name or name == "generic_activation_patch":
        where = bench.model.hook_dict["blocks.1.hook_resid_pre"]

        def by_hand(tensor: Tensor, hook: Any) -> Tensor:
            tensor[:, -1] = clean["blocks.1.hook_resid_pre"][:, -1]
            return tensor

        wanted = bench.model.run_with_hooks(bench.corrupt, fwd_hooks=[(where.name, by_hand)])
        torch.testing.assert_close(table[1, -1], bench.metric(wanted), **CLOSE)


@torch.no_grad()
def direct(bench: Bench, name: str) -> None:
    """Into the query of one head, as by hand."""
    clean, corrupt = bench.caches
    source, head, layer, target = 0, 1, 2, 3
    place = f"blocks.{source}.attn.hook_z"
    write = (clean[place] - corrupt[place])[:, :, head] @ bench.model.W_O[source, head]
    with bench.attach_clips() as (_, tokens):
        arguments = (bench.model, tokens, clean, corrupt, bench.metric)
        if name == "get_act_patch_direct_path":
            table = patching.get_act_patch_direct_path(*arguments, source, head, verbose=False)
        else:
            every: Any = patching.get_act_patch_direct_path_all_sources
            if bench.kind != "published":  # the fewest layers: every source is a sweep
                return
            with silence():
                table = every(*arguments, verbose=False)[source, head]
        with pytest.raises(ValueError, match="GQA"):
            patching.get_act_patch_direct_path(*arguments, source, head, component="k")
    bench.model.set_use_split_qkv_input(True)
    try:

        def add(tensor: Tensor, hook: Any) -> Tensor:
            tensor = tensor.clone()
            tensor[:, :, target] += write
            return tensor

        wanted = bench.model.run_with_hooks(
            bench.corrupt, fwd_hooks=[(f"blocks.{layer}.attn.hook_q_input", add)]
        )
    finally:
        bench.model.set_use_split_qkv_input(False)
    torch.testing.assert_close(table[layer, target], bench.metric(wanted), **CLOSE)


def attributed(bench: Bench, name: str) -> None:
    """The effect of a small step from the corrupt activation to the clean one, at any node."""
    model = bench.changed().to(torch.float64, print_details=False)
    model.model.requires_grad_(False)
    clean, corrupt = bench.clean, bench.corrupt
    with model.attach_clips(clean, corrupt) as (clean_tokens, tokens):
        result = analysis.attribution_patch(model, clean_tokens, tokens, bench.metric)
        with torch.no_grad():
            _, cache = model.run_with_cache(clean)
    kinds = {node.kind for node, _ in result.top_nodes(400)}
    assert kinds == {"embed", "attn_head_out", "mlp_out"}
    for kind in kinds:
        node, score = next(each for each in result.top_nodes(10_000) if each[0].kind == kind)
        if bench.kind == "lal" and kind == "embed":
            assert score == 0  # the same words; the sound enters layers as keys
            continue

        def step(tensor: Tensor, hook: Any, node: Any = node, size: float = 0.0) -> Tensor:
            at = (0, node.position) if node.head is None else (0, node.position, node.head)
            moved = tensor.clone()
            moved[at] += size * (cache[node.hook_name][at] - tensor[at])
            return moved

        # Both ways, and not too small: the class's norms are in single precision.
        after: list[Tensor] = []
        for size in (-STEP, STEP):
            hook = functools.partial(step, size=size)
            with torch.no_grad():
                logits = model.run_with_hooks(corrupt, fwd_hooks=[(node.hook_name, hook)])
            after.append(bench.metric(logits))
        slope = float(after[1] - after[0]) / (2 * STEP)
        assert score == pytest.approx(slope, rel=2e-2)
        assert abs(score) > 1e-6


@torch.no_grad()
def captured(bench: Bench, name: str) -> None:
    with bench.attach_clips() as (tokens, _):
        if name == "capture_writer_outputs":
            got = attribution_patching.capture_writer_outputs(bench.model, tokens, ["hook_embed"])
            torch.testing.assert_close(got["hook_embed"], bench.caches[0]["hook_embed"])
            return
        with torch.enable_grad():
            found = attribution_patching.cache_activation_and_gradient(
                bench.model, tokens, bench.metric
            )
    torch.testing.assert_close(found.metric, bench.metric(bench.logits), **CLOSE)
    assert all(gradient is not None for gradient in found.gradients.values())
    nodes = attribution_patching.enumerate_nodes(bench.model, found)
    assert {node.position for node in nodes} == set(range(len(bench.running)))


@torch.no_grad()
def lenses(bench: Bench, name: str) -> None:
    with bench.attach_clips() as (tokens, _):
        if name == "logit_readout":
            read = analysis.logit_readout(bench.model, bench.caches[0][bench.last][0, -1]).values
        else:
            read = analysis.logit_lens(bench.model, tokens).values[-1]
    torch.testing.assert_close(read.flatten(), bench.logits[0, -1], **CLOSE)


def edges(bench: Bench, name: str) -> None:
    nodes = [attribution_patching.Node("embed", 0)]
    with bench.attach_clips() as (clean, corrupt):
        if name == "faithfulness":
            analysis.faithfulness(bench.model, clean, corrupt, bench.metric, [(nodes[0], nodes[0])])
        else:
            config = analysis.EdgeAttributionConfig(granularity="edge")
            analysis.attribution_patch(bench.model, clean, corrupt, bench.metric, config)


def reinitialised(bench: Bench, name: str) -> None:
    assert name == "reinitialized" or "model" not in inspect.signature(_named(name)).parameters
    analysis.reinitialized(bench.model, 0)


def _named(name: str) -> Any:
    return getattr(analysis, name)


def of_weights(bench: Bench, name: str) -> None:
    if name == "attention_head_subspace_affinity":
        got, wanted = (
            analysis.attention_head_subspace_affinity(each, target_role="Q")
            for each in (bench.model, bench.text)
        )
        same(got.top_pairs(3), wanted.top_pairs(3))
        return
    got, wanted = (SVDInterpreter(each) for each in (bench.model, bench.text))
    for kind, head in (("OV", 1), ("w_in", None), ("w_out", None)):
        one, other = (each.get_singular_vectors(kind, 1, 3, head) for each in (got, wanted))
        torch.testing.assert_close(one, other)


def interchanged(bench: Bench, name: str) -> None:
    """All of an activation set to the clean run's is patching it."""
    model, width = bench.model, bench.model.cfg.d_model
    last = torch.tensor([-1])
    task = lambda tokens: model(tokens)[:, -1]  # noqa: E731
    with bench.attach_clips() as (clean, corrupt):
        held = interchange.collect_activations(model, MIDDLE, clean, task, positions=last)
        torch.testing.assert_close(held[0], bench.caches[0][MIDDLE][0, -1], **CLOSE)
        if name == "fit_das":
            targets = torch.tensor([5])
            fitted = analysis.fit_das(
                *(model, MIDDLE, corrupt, clean, targets, task),
                rank=1,
                base_positions=last,
                source_positions=last,
                epochs=4,
                lr=0.1,
            )
            assert fitted.losses[-1] < fitted.losses[0]
            return
        whole = analysis.SubspaceInterchange(torch.eye(width))
        run: Any = getattr(analysis, name if name != "collect_activations" else "intervened_logits")
        got = run(model, MIDDLE, whole, corrupt, held, task, positions=last)

        def patch(tensor: Tensor, hook: Any) -> Tensor:
            tensor = tensor.clone()
            tensor[:, -1] = bench.caches[0][MIDDLE][:, -1]
            return tensor

        with torch.no_grad():
            wanted = model.run_with_hooks(bench.corrupt, fwd_hooks=[(MIDDLE, patch)])
    torch.testing.assert_close(got, wanted[:, -1], **CLOSE)


def fitted_lens(bench: Bench) -> Any:
    """Fitted once for all rows of a bench."""
    if bench.lens is None:
        bench.lens = jacobian_lens.JacobianLens.fit(
            bench.model,
            ["one two three four five six"],
            corpus="none",
            source_layers=[1],
            skip_first_positions=1,
            dim_batch=32,
            show_progress=False,
        )
    return bench.lens


def jacobian(bench: Bench, name: str) -> None:
    """Fitted on text, read and applied at sound."""
    model, method = bench.model, name.split(".")[-1]
    lens = fitted_lens(bench)
    assert torch.isfinite(lens.jacobians[1]).all()
    activation = bench.caches[0]["blocks.1.hook_out"][0, -1]
    with torch.no_grad(), bench.attach_clips() as (tokens, _), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if bench.kind == "lal" and method in ("readout", "fraction_of_variance"):
            with pytest.raises(IndexError):
                getattr(lens, method)(model, tokens, layers=[1], positions=[-1])
            return
        if method == "from_pretrained":
            with tempfile.TemporaryDirectory() as folder:
                lens.save(f"{folder}/lens.pt", dtype=torch.float32)
                read = type(lens).from_pretrained(f"{folder}/lens.pt", model=model)
            assert torch.equal(read.jacobians[1], lens.jacobians[1])
            return
        if method == "readout":
            read = lens.readout(model, tokens, positions=[-1], return_full_logits=True)
            torch.testing.assert_close(read.model_logits.flatten(), bench.logits[0, -1], **CLOSE)
            return
        vectors = lens.lens_vectors(model, [5, 7], 1)
        torch.testing.assert_close(
            vectors, (model.W_U[:, [5, 7]].T @ lens.jacobians[1]).to(vectors), **CLOSE
        )
        if method == "validate_model":
            assert lens.validate_model(model) is lens
        elif method == "lens_vector_dictionary":
            torch.testing.assert_close(lens.lens_vector_dictionary(model, 1)[[5, 7]], vectors)
        elif method == "fraction_of_variance":
            found = lens.fraction_of_variance(model, tokens, [1], k=2, skip_first=0)
            assert found is not None
        elif method in ("decompose", "occupancy", "coordinate_patch"):
            more = {"occupancy": {"max_atoms": 2, "num_control_dictionaries": 1}}
            if method == "coordinate_patch":
                token = lens.decompose(model, activation, 1, k=2).support[0]
                lens.coordinate_patch(model, activation, 1, int(token), 7, k=2)
            else:
                options = more.get(method, {"k": 2})
                assert getattr(lens, method)(model, activation, 1, **options) is not None
        elif method.endswith("hooks"):
            hooks: Any = getattr(lens, method)
            arguments: dict[str, Any] = {
                "steering_hooks": (7, [1]),
                "ablation_hooks": ([5, 7], [1]),
                "swap_hooks": (5, 7, [1]),
                "swap_clamp_hooks": (5, 7, [1], bench.caches[1]),
            }
            if method in arguments:
                made = hooks(model, *arguments[method], positions=[-1])
                got = model.run_with_hooks(tokens, fwd_hooks=made)
                assert not torch.allclose(got[:, -1], bench.logits[:, -1])
            else:
                token = int(lens.decompose(model, activation, 1, k=2).support[0])
                made = hooks(model, token, 7, [1], positions=[-1], k=2)
                model.run_with_hooks(tokens, fwd_hooks=made)


def trained(bench: Bench, name: str) -> None:
    """A step of training on tokens with clips attached lowers the loss."""
    model = bench.changed()
    with model.attach_clips(bench.clean) as tokens:
        with torch.no_grad():
            before = model(tokens, return_type="loss")
        config = training.TrainConfig(
            num_epochs=1, batch_size=1, lr=1e-3, device="cpu", print_every=None
        )
        with silence():
            training.train(model, config, [{"tokens": tokens[0]}])
        model.eval()
        with torch.no_grad():
            assert model(tokens, return_type="loss") < before


def evaluated(bench: Bench, name: str) -> None:
    """As on the decoder alone, which knows no sound."""
    # ids as its induction_loss draws them are of larger vocabularies
    if name == "sanity_check":
        got, wanted = (evals.sanity_check(each) for each in (bench.model, bench.text))
    elif name == "evaluate_on_dataset":
        batch = [{"tokens": bench.model.to_tokens("what is heard in here?")}]
        with contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
            got, wanted = (
                torch.tensor(evals.evaluate_on_dataset(each, batch, device="cpu"))
                for each in (bench.model, bench.text)
            )
    elif name == "induction_loss":
        if bench.kind == "published":
            return
        found = []
        for each in (bench.model, bench.text):
            torch.manual_seed(0)
            found.append(evals.induction_loss(each, subseq_len=8, prepend_bos=False, device="cpu"))
        got, wanted = found
    else:
        text = "what is heard what is heard"
        got, wanted = (
            head_detector.detect_head(each, text, "previous_token_head")
            for each in (bench.model, bench.text)
        )
    torch.testing.assert_close(got, wanted, **CLOSE)


@torch.no_grad()
def shown(bench: Bench, name: str) -> None:
    """Ranks of an answer's words behind a prompt with sound; more in test_tokens.py."""
    with bench.attach_clips() as (tokens, _), contextlib.redirect_stdout(io.StringIO()) as out:
        del tokens
    with bench.model.attach_clips(bench.clean):
        text = bench.model.to_string(bench.clean["input_ids"][0])
        with contextlib.redirect_stdout(out):
            exploratory_utils.test_prompt(text, ["?"], bench.model, prepend_space_to_answer=False)
    rank = bench.logits[0, -1].argsort(descending=True).tolist()
    assert f"('?', {rank.index(bench.model.to_single_token('?'))})" in " ".join(
        out.getvalue().split()
    )


def given(bench: Bench, name: str) -> None:
    """Of tensors that the members above give, or of no model at all."""
    assert callable(getattr(analysis, name)) or inspect.isclass(getattr(analysis, name))


def downloads(bench: Bench, name: str) -> None:
    """They call the model as `evaluate_on_dataset` does; their data is not on this machine."""
    assert "model(" in inspect.getsource(getattr(evals, name)) or name == "evaluate"


ROWS: list[Row] = [
    row(
        f"generic_activation_patch {' '.join(SWEEPS)}",
        "cells are runs patched by hand, of two sounds too (`attach_clips(clean, corrupt)`); by "
        "position only under routes that run every token (PLITS, published): else a `HookError`",
        patched,
    ),
    row(
        "get_act_patch_direct_path get_act_patch_direct_path_all_sources",
        'a head\'s write added to one query by hand; `"k"`, `"v"` are refused by TransformerLens '
        "where heads share keys",
        direct,
    ),
    row(
        "attribution_patch",
        "the slope of patching by hand, at nodes; edges are refused by TransformerLens where heads "
        "share keys. Under LAL sound has no node: it enters as keys",
        attributed,
    ),
    row(
        "cache_activation_and_gradient capture_writer_outputs enumerate_nodes Node "
        "EdgeAttributionConfig FaithfulnessConfig",
        "activations and gradients of tokens that run, whether or not weights have gradients",
        captured,
    ),
    refused(
        "enumerate_edges faithfulness",
        "edges are of heads with keys of their own; the demo's heads share them (TransformerLens)",
        edges,
        ValueError,
        "GQA",
    ),
    row(
        "logit_lens logit_readout",
        "the model's logits, of the last layer",
        lenses,
    ),
    refused(
        "direct_logit_attribution",
        "it wants folded norms, which are refused (TransformerLens): `logit_attrs` with the final "
        "norm's weight in the direction",
        lambda bench, name: analysis.direct_logit_attribution(bench.model, "it is", 7),
        ValueError,
        "compatibility mode",
    ),
    row(
        "attention_head_subspace_affinity SVDInterpreter",
        "TransformerLens's own, on the decoder alone",
        of_weights,
    ),
    row(
        "collect_activations run_with_intervention intervened_logits fit_das",
        "an activation interchanged as a whole is patched by hand; a subspace learns",
        interchanged,
    ),
    row(
        "JacobianLens JacobianLens.from_pretrained JacobianLens.fit "
        "JacobianLens.validate_model JacobianLens.readout "
        "JacobianLens.lens_vectors JacobianLens.lens_vector_dictionary JacobianLens.decompose "
        "JacobianLens.coordinate_patch JacobianLens.occupancy JacobianLens.fraction_of_variance "
        "JacobianLens.steering_hooks JacobianLens.ablation_hooks JacobianLens.swap_hooks "
        "JacobianLens.swap_clamp_hooks JacobianLens.coordinate_patch_hooks",
        "fitted on text, read and applied where sound is heard; the last layer's logits are the "
        "model's. Positions count the tokens that run: `readout` and `fraction_of_variance`, which "
        "count all, are an `IndexError` behind sound that does not run",
        jacobian,
    ),
    row("train", "a step lowers the loss on tokens with clips attached", trained),
    row(
        "sanity_check evaluate_on_dataset induction_loss detect_head",
        "of texts: TransformerLens's own, on the decoder alone",
        evaluated,
    ),
    row(
        "evaluate ioi_eval mmlu_eval",
        "of texts from the hub, which the tests do not fetch: they call the model as those above",
        downloads,
    ),
    row("test_prompt", "ranks in the model's logits, behind sound within `attach_clips`", shown),
    refused(
        "reinitialized random_init_bridge",
        "they make weights anew, of standard layers or of a text model's name (TransformerLens)",
        reinitialised,
        ValueError,
        "cannot reset",
    ),
    row(
        "JSpaceDecomposition LearnedSubspace NormMatchedPlacebo SparseProbeConvergenceError "
        "SubspaceBasis SubspaceInterchange arbitrary_targets fit_sparse_probe "
        "get_sparse_decomposition mean_difference_basis neuron_basis orthonormal_subspace "
        "probe_basis projection_kernel random_basis random_neuron_basis "
        "random_projection_kernel_moments solve_coordinate_patch sweep_sparse_probe",
        "of tensors: whatever a cache of this model holds",
        given,
    ),
]
