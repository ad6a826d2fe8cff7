"""Rows of the bridge's own members."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._hooks.attention import AUDIO_HOOKS
from palscope.errors import HookError, PalscopeError
from tests.hooks.inherited.bench import QUESTION, Bench
from tests.hooks.inherited.rows import Row, refused, row

PLACE = "blocks.1.hook_resid_post"

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "accumulated_bias": (2,),
    "all_composition_scores": ("K",),
    "block_submodules": (1,),
    "blocks_with": ("attn",),
    "stack_params_for": ("mlp", "mlp.W_out"),
    "tokens_to_residual_directions": (torch.tensor([3, 17]),),
}


def same(got: Any, wanted: Any) -> None:
    """Of tensors, and of what holds them."""
    if isinstance(wanted, Tensor):
        assert torch.equal(got, wanted)
    elif isinstance(wanted, dict):
        assert set(got) == set(wanted)
        for name in wanted:
            same(got[name], wanted[name])
    elif isinstance(wanted, list | tuple):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            same(one, other)
    elif hasattr(wanted, "AB"):  # a factored matrix
        same((got.A, got.B), (wanted.A, wanted.B))
    elif isinstance(wanted, torch.nn.Module):
        assert type(got).__name__.endswith(type(wanted).__name__)
    elif hasattr(wanted, "scores"):
        same((got.scores, got.head_labels), (wanted.scores, wanted.head_labels))
    else:
        assert got == wanted


def as_of_text(bench: Bench, name: str) -> None:
    """The same value, or the same refusal, as on the decoder alone."""

    def read(model: Any) -> Any:
        member = getattr(model, name)
        value = member(*ARGUMENTS.get(name, ())) if callable(member) else member
        return dict(value) if name == "tl_named_parameters" else value

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            wanted = read(bench.text)
        except AttributeError as error:
            with pytest.raises(AttributeError) as raised:
                read(bench.model)
            assert str(raised.value) == str(error)
        else:
            same(read(bench.model), wanted)


def whole(bench: Bench, name: str) -> None:
    untouched = list(bench.untouched.parameters())
    if name == "n_params_total":
        assert bench.model.n_params_total == sum(each.numel() for each in untouched)
    elif name == "original_model":
        assert bench.model.original_model is bench.model.model
    else:
        found = [
            each[1] if isinstance(each, tuple) else each for each in getattr(bench.model, name)()
        ]
        held = {each.data_ptr() for each in found}
        assert len(held) >= len({each.data_ptr() for each in untouched})


@torch.no_grad()
def stored(bench: Bench, name: str) -> None:
    del name
    other = bench.changed()
    state = {key: value.clone() for key, value in other.state_dict().items()}
    for weight in other.model.parameters():
        weight.mul_(1.1)
    assert not torch.allclose(other(bench.clean), bench.logits)
    other.load_state_dict(state)
    torch.testing.assert_close(other(bench.clean), bench.logits)


@torch.no_grad()
def moved(bench: Bench, name: str) -> None:
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(name)
    other, inputs = bench.changed(), bench.clean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TransformerLens's, of MPS
        if backend is not None and not backend.is_available():
            with pytest.raises((AssertionError, RuntimeError)):
                getattr(other, name)()
            return
        other = other.to(torch.float64, print_details=False) if name == "to" else other
        other = other if name == "to" else getattr(other, name)()
    inputs = {key: value.to(other.model.device) for key, value in inputs.items()}
    got = other(inputs).float().cpu()
    torch.testing.assert_close(got, bench.logits, atol=1e-4, rtol=0)


def training(bench: Bench, name: str) -> None:
    try:
        assert bench.model.train().model.training and bench.model.blocks[0].training
    finally:
        bench.model.eval()
    assert not bench.model.model.training


@torch.no_grad()
def hooking(bench: Bench, name: str) -> None:
    """What is set is passed once, and edits; what cannot fire is in test_firing.py."""
    model, seen = bench.model, []

    def zero(tensor: Tensor, hook: Any) -> Tensor:
        seen.append(hook.name)
        return 0 * tensor

    if name == "hooks":
        with model.hooks(fwd_hooks=[(PLACE, zero)]):
            got = model(bench.clean)
    elif name == "run_with_hooks":
        got = model.run_with_hooks(bench.clean, fwd_hooks=[(PLACE, zero)])
    else:
        getattr(model, name)(PLACE, zero)
        got = model(bench.clean)
        model.reset_hooks(including_permanent=True)
    assert len(seen) == 1 and not torch.allclose(got, bench.logits)
    assert torch.equal(model(bench.clean), bench.logits)
    with pytest.raises(HookError):
        model.run_with_hooks(bench.clean, fwd_hooks=[("blocks.0.hook_nothing", zero)])


@torch.no_grad()
def caching(bench: Bench, name: str) -> None:
    model, wanted = bench.model, bench.caches[0][PLACE]
    cache: dict[str, Any] = {}
    if name == "run_with_cache":
        logits, cache = model.run_with_cache(bench.clean, names_filter=PLACE)
        torch.testing.assert_close(logits, bench.logits)
    elif name == "get_caching_hooks":
        cache, forward, _ = model.get_caching_hooks(PLACE)
        model.run_with_hooks(bench.clean, fwd_hooks=forward)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            if name == "cache_all":
                model.cache_all(cache)
            elif name == "cache_some":
                model.cache_some(cache, lambda place: place == PLACE)
            else:
                cache = model.add_caching_hooks(PLACE)
        model(bench.clean)
        model.reset_hooks()
    found = cache.get("blocks.1.hook_out") if name == "cache_all" else cache[PLACE]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def hook_lists(bench: Bench, name: str) -> None:
    model = bench.model
    point = model.hook_dict[PLACE]
    assert model.mod_dict[PLACE] is point and point in set(model.hook_points())
    assert model.get_hook_point(point.name) is point and model.get_hook_point("nothing") is None
    assert model.hook_dict["hook_embed"] is model.hook_dict["blocks.0.hook_in"]
    more = set(model.block_hooks(1)) - set(bench.text.block_hooks(1))
    assert more == {f"attn.{each}" for each in AUDIO_HOOKS}
    model.add_hook(PLACE, lambda tensor, hook: None)
    point.ctx["kept"] = 1
    assert {model.hook_dict[name] for name in model.list_hooks()} == {point}
    model.remove_all_hook_fns()
    model.clear_contexts()
    assert not model.list_hooks() and not point.ctx
    with pytest.raises(ValueError, match="set_use_attn_result"):
        model.check_hooks_to_add(model.blocks[0].attn.hook_result, "it", lambda *_: None)


@torch.no_grad()
def flags(bench: Bench, name: str) -> None:
    ends = {
        "set_use_attn_result": "attn.hook_result",
        "set_use_split_qkv_input": "attn.hook_k_input",
        "set_use_attn_in": "attn.hook_attn_in",
        "set_use_hook_mlp_in": "hook_mlp_in",
    }
    place = f"blocks.1.{ends[name]}"
    assert not bench.model.can_fire(place)
    getattr(bench.model, name)(True)
    try:
        logits, cache = bench.model.run_with_cache(bench.clean, names_filter=[place])
    finally:
        getattr(bench.model, name)(False)
    torch.testing.assert_close(logits, bench.logits, atol=1e-4, rtol=0)
    held = cache[place]
    if name == "set_use_attn_result":
        head_sum, wanted = held.sum(2), bench.caches[0]["blocks.1.hook_attn_out"]
        torch.testing.assert_close(head_sum, wanted, atol=1e-4, rtol=1e-4)
    else:
        kind = "hook_resid_mid" if "mlp" in name else "hook_resid_pre"
        wanted = bench.caches[0][f"blocks.1.{kind}"]
        wanted = wanted if held.ndim == 3 else wanted[:, :, None].expand_as(held)
        torch.testing.assert_close(held, wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def calling(bench: Bench, name: str) -> None:
    model = bench.model
    with bench.attach_clips() as (clean, corrupt):
        assert torch.equal(model(clean), bench.logits)
        assert not torch.allclose(model(corrupt), bench.logits)
        loss = model(clean, return_type="loss")
        torch.testing.assert_close(model.loss_fn(bench.logits, clean), loss)
        entered, tokens, _, _ = model.input_to_embed(clean)
    torch.testing.assert_close(entered, bench.caches[0]["hook_embed"])
    assert torch.equal(tokens, clean)
    ids = bench.clean["input_ids"]
    real = ids != model.model.audio_token_id
    own = bench.model.model(**bench.clean, labels=ids.masked_fill(~real, -100)).loss
    torch.testing.assert_close(loss, own)


@torch.no_grad()
def generating(bench: Bench, name: str) -> None:
    options = {"max_new_tokens": 3, "do_sample": False, "stop_at_eos": False}
    wanted = bench.model.model.generate(
        **bench.clean, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0
    )
    if name == "hf_generate":
        got = bench.model.hf_generate(bench.clean, **options)
    elif name == "generate":
        got = bench.model.generate(bench.clean, verbose=False, **options)
    else:
        parts = bench.model.generate_stream(bench.clean, return_type="tokens", **options)
        got = torch.cat(list(parts), 1)
    assert torch.equal(got[:, : ids_width(bench) + 1], wanted[:, : ids_width(bench) + 1])
    if bench.model.tokenizer.eos_token_id not in wanted[0, ids_width(bench) :]:
        assert torch.equal(got, wanted)


def ids_width(bench: Bench) -> int:
    return bench.clean["input_ids"].shape[1]


def words(bench: Bench, name: str) -> None:
    model, tokenizer = bench.model, bench.model.processor.tokenizer
    assert model.tokenizer is tokenizer
    (wanted,) = model.processor([QUESTION])["input_ids"]
    assert torch.equal(model.to_tokens(QUESTION)[0], wanted)
    assert model.to_string(wanted) == tokenizer.decode(wanted)
    assert model.to_str_tokens(QUESTION) == [tokenizer.decode([int(i)]) for i in wanted]
    assert model.to_single_token("?") == wanted[-1]
    assert model.to_single_str_token(int(wanted[-1])) == "?"
    assert model.get_token_position("?", QUESTION) == len(wanted) - 1


def nothing(bench: Bench, name: str) -> None:
    if name == "close":
        bench.model.close()
        assert torch.equal(bench.model(bench.clean), bench.logits)
    else:
        assert getattr(type(bench.model), name).__module__.startswith("transformer_lens")


ROWS: list[Row] = [
    row(
        "W_E W_U W_Q W_K W_V W_O W_in W_gate W_out b_U b_Q b_K b_V b_O b_in b_out W_pos W_E_pos "
        "QK OV QK_for_attn_layers OV_for_attn_layers accumulated_bias all_composition_scores "
        "composition_layer_indices all_head_labels attn_head_labels blocks_with block_submodules "
        "layer_types stack_params_for get_params tl_parameters tl_named_parameters "
        "tokens_to_residual_directions",
        "TransformerLens's own, on the decoder alone: the encoder's layers are not counted. "
        "`all_composition_scores` takes more than 10 GB for the demo's 270 heads",
        as_of_text,
    ),
    row(
        "original_model n_params_total parameters named_parameters",
        "the whole model's, encoder and connector among them",
        whole,
    ),
    row(
        "state_dict load_state_dict",
        "what is stored and loaded gives the same logits",
        stored,
        at_once=True,
    ),
    row("to cpu cuda mps", "the same logits in another type or on another device", moved),
    row("train", "PyTorch's, also of the model inside", training),
    row(
        "add_hook add_perma_hook hooks run_with_hooks",
        "TransformerLens's; what cannot fire or did not is a `HookError`",
        hooking,
    ),
    row(
        "run_with_cache get_caching_hooks add_caching_hooks cache_all cache_some",
        "what passes the hook points; `incl_bwd`: gradients from the bottom up, also where weights "
        "have none; `pos_slice` counts the tokens that run",
        caching,
    ),
    row(
        "hook_dict mod_dict hook_points get_hook_point hook_aliases block_hooks list_hooks "
        "reset_hooks remove_all_hook_fns clear_contexts check_hooks_to_add",
        "TransformerLens's, and audio's hook points; `hook_embed` is what enters layer 0",
        hook_lists,
        at_once=True,
    ),
    row(
        "set_use_attn_result set_use_split_qkv_input set_use_attn_in set_use_hook_mlp_in",
        "the same logits to rounding; heads add up to the layer, inputs are its residual state",
        flags,
    ),
    row(
        "forward loss_fn input_to_embed",
        "the Hugging Face model's logits, its loss over text, its state before layer 0",
        calling,
        at_once=True,
    ),
    row("generate generate_stream hf_generate", "the Hugging Face model's words", generating),
    row(
        "tokenizer to_tokens to_string to_str_tokens to_single_token to_single_str_token "
        "get_token_position",
        "the processor's tokenizer; one start mark, where it sets one",
        words,
        at_once=True,
    ),
    row(
        "close list_supported_models check_model_support",
        "TransformerLens's; they are not about this model",
        nothing,
    ),
    refused(
        "enable_compatibility_mode process_weights",
        "they fold weights, but audio passes the layers' own norms and projections",
        lambda bench, name: getattr(bench.model, name)(),
        PalscopeError,
        "folds weights",
    ),
    refused(
        "boot_transformers boot_native boot_tl_legacy",
        "they open text models: `palscope.load`",
        lambda bench, name: getattr(HookedAudioModel, name)("gpt2"),
        PalscopeError,
        r"palscope\.load",
    ),
    refused(
        "clear_hook_registry",
        "hook points are found once, when the model is loaded",
        lambda bench, name: bench.model.clear_hook_registry(),
        PalscopeError,
        "found once",
    ),
    refused(
        "prepare_multimodal_inputs",
        "of pictures: `inputs(question, clip)`",
        lambda bench, name: bench.model.prepare_multimodal_inputs("?"),
        PalscopeError,
        r"inputs\(question",
    ),
    refused(
        "init_weights",
        "of TransformerLens's native models (TransformerLens)",
        lambda bench, name: bench.model.init_weights(),
        RuntimeError,
        "TL-native",
    ),
    refused(
        "encoder_output",
        "of encoders without a decoder (TransformerLens)",
        lambda bench, name: bench.model.encoder_output(torch.zeros(1, 2, 8)),
        NotImplementedError,
        "not an audio model",
    ),
    refused(
        "to_sentence_pair_tokens predict_next_sentence",
        "of models of sentence pairs (TransformerLens)",
        lambda bench, name: getattr(bench.model, name)("a", "b"),
        ValueError,
        "sentence pair",
    ),
    refused(
        "diffusion_generate",
        "of diffusion models (TransformerLens)",
        lambda bench, name: bench.model.diffusion_generate("a"),
        NotImplementedError,
        "no native sampler",
    ),
]
