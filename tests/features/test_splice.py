"""A dictionary in the model: against the plain model with torch's own hooks, and rows as stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palscope import PalscopeForConditionalGeneration
from palscope._routing import Route
from palscope.errors import HookError, PalscopeError
from palscope.features import Dictionary, spliced
from palscope.interventions import Address, Patch, Sound, Zero, intervene
from tests import tiny, vocabulary
from tests.features.spliced import random_at
from tests.hooks.conftest import make_hooked, noise

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 0}
ENCODER = "audio_blocks.0.hook_out"
MLP = {"hook_point_out": "blocks.1.hook_mlp_out", "streams": ["text"], "d_out": 32}


@pytest.fixture(scope="module")
def batch(model: Any, clips: Any) -> dict[str, Any]:
    """Eight clips of different lengths, each with its question: padded before and inside."""
    processor = model.processor
    texts = [processor.chat(clip.question) for clip in clips[:8]]
    sounds = [clip.sound.samples for clip in clips[:8]]
    return dict(processor(texts, sounds, sampling_rate=16_000))


@pytest.mark.parametrize(
    "hook_point",
    [
        ENCODER,
        "audio_pool.hook_in",
        "audio_projector_frames_0.hook_in",
        "audio_input_summary.hook_in",
        "blocks.0.attn.hook_audio_state",
        "blocks.2.hook_resid_post",
        "blocks.1.hook_mlp_out",
    ],
)
@torch.no_grad()
def test_rows_that_are_stored_go_through_it_and_no_others(
    model: Any, clips: Any, store: Any, batch: Any, hook_point: str
) -> None:
    bare = model(batch)
    rows = store[hook_point].of_clips([number < 8 for number in range(len(clips))])
    dictionary = random_at(hook_point, rows.width)
    acts, error = f"{hook_point}.hook_sae_acts_post", f"{hook_point}.hook_sae_error"
    with spliced(model, dictionary):
        logits, cache = model.run_with_cache(batch, names_filter=[hook_point, acts, error])
    x = rows[:]
    touched = (cache[error] != 0).any(-1)
    assert touched.shape == cache[hook_point].shape[:2]  # laid out as the site is
    torch.testing.assert_close(cache[acts][touched], dictionary.encode(x), **CLOSE)
    torch.testing.assert_close(cache[error][touched], x - dictionary(x), **CLOSE)
    assert not cache[acts][~touched].any()
    torch.testing.assert_close(logits, bare, **CLOSE)  # the error makes up for all
    with spliced(model, dictionary, error=False):
        changed = model(batch)
    assert (changed - bare).abs().max() > 0.1
    assert torch.equal(model(batch), bare) and not any("hook_sae" in n for n in model.hook_dict)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    """The Hugging Face model, without any hook point."""
    return PalscopeForConditionalGeneration.from_pretrained(folder).eval()


def plain_logits(plain: Any, inputs: Any, *hooks: Any) -> torch.Tensor:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        return plain(**inputs).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("number", [1, 2])
@torch.no_grad()
def test_reconstructions_alone_are_the_plain_model_s_with_a_torch_hook(
    model: Any, clips: Any, plain: Any, folder: Path, number: int
) -> None:
    """In the encoder: 20 ms a token, counted from the samples, and silence behind left alone."""
    clip = clips[number]
    tokens = -(-len(clip.sound.samples) // 320)
    dictionary = random_at(ENCODER, 16)
    inputs = model.inputs(clip.question, clip.sound)

    def reconstructed(module: Any, given: Any, out: Any) -> Any:
        states = out[0] if isinstance(out, tuple) else out
        states = torch.cat([dictionary(states[:, :tokens]), states[:, tokens:]], 1)
        return (states, *out[1:]) if isinstance(out, tuple) else states

    wanted = plain_logits(plain, inputs, (plain.encoder.model.layers[0], reconstructed))
    with spliced(model, dictionary, error=False):
        torch.testing.assert_close(model(inputs)[:, -1], wanted, **CLOSE)


@torch.no_grad()
def test_a_transcoder_stands_for_a_feed_forward_network(model: Any, clips: Any, plain: Any) -> None:
    """Text alone, as it was trained: the sound that runs there has the network's own output."""
    inputs = model.inputs("what?", clips[0].sound)
    transcoder = random_at("blocks.1.mlp.hook_in", 32, **MLP)
    columns = model.layout(inputs).layer_columns(model.current_route, 1).running[0]
    text = inputs["input_ids"][0][columns] != model.processor.audio_token_id
    assert 0 < text.sum() < len(text)
    ablated: list[int] = []

    def transcoded(module: Any, given: Any, out: Any) -> Any:
        x, new = given[0][0, text], out.clone()
        latents = transcoder.encode(x)
        new[0, text] = (
            transcoder.decode(latents, x)
            if not ablated
            else (out[0, text] - latents[:, ablated] @ transcoder.W_dec[ablated])
        )
        return new

    mlp = plain.language_model.model.layers[1].mlp
    with spliced(model, transcoder, error=False):
        found = model(inputs)[:, -1]
    torch.testing.assert_close(found, plain_logits(plain, inputs, (mlp, transcoded)), **CLOSE)
    with spliced(model, transcoder):
        torch.testing.assert_close(model(inputs)[:, -1], plain_logits(plain, inputs), **CLOSE)
        ablated += torch.arange(0, 24, 2).tolist()
        with intervene(model, inputs, [Patch(Address("feature", features=tuple(ablated)), Zero())]):
            found = model(inputs)[:, -1]
    wanted = plain_logits(plain, inputs, (mlp, transcoded))
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert (wanted - plain_logits(plain, inputs)).abs().max() > 0.05


def test_gradients_below_are_the_bare_model_s_and_those_of_latents_go_along_directions(
    model: Any, clips: Any
) -> None:
    dictionary = random_at(ENCODER, 16)
    inputs = model.inputs("what?", clips[0].sound)
    entry, acts = "audio_conv1.hook_out", f"{ENCODER}.hook_sae_acts_post"

    def gradients(*names: str) -> list[torch.Tensor]:
        kept: dict[str, torch.Tensor] = {}

        def keep(tensor: Any, hook: Any) -> None:
            tensor.retain_grad()
            kept[hook.name] = tensor

        logits = model.run_with_hooks(inputs, fwd_hooks=[(name, keep) for name in names])
        logits[0, -1, 5].backward()
        model.model.zero_grad()
        found = [kept[name].grad for name in names]
        assert all(each is not None for each in found)
        return found  # pyright: ignore[reportReturnType]

    bare, at_site = gradients(entry, ENCODER)
    with spliced(model, dictionary):
        below, of_latents, of_error = gradients(entry, acts, f"{ENCODER}.hook_sae_error")
        # TransformerLens removed its own hooks alone: the dictionary is still there.
        again, _ = gradients(entry, acts)
    torch.testing.assert_close(below, bare, **CLOSE)
    torch.testing.assert_close(again, bare, **CLOSE)
    inside = (of_error != 0).any(-1)
    torch.testing.assert_close(of_error[inside], at_site.view_as(of_error)[inside], **CLOSE)
    wanted = at_site.view_as(of_error)[inside] @ dictionary.W_dec.T
    torch.testing.assert_close(of_latents[inside], wanted, **CLOSE)
    with spliced(model, dictionary, error=False):
        (alone,) = gradients(entry)
    assert (alone - bare).abs().max() > 1e-3  # what is not reconstructed has no way down


@torch.no_grad()
def test_text_that_is_generated_goes_through_one_of_text(model: Any, clips: Any) -> None:
    clip = clips[0]
    dictionary = random_at("blocks.2.hook_resid_post", 32, streams=["text"])
    bare = model.ask("what?", clip.sound, max_new_tokens=4)
    touched: list[int] = []

    def count(tensor: Any, hook: Any) -> None:
        touched.append(int((tensor != 0).any(-1).sum()))

    with spliced(model, dictionary):
        name = "blocks.2.hook_resid_post.hook_sae_acts_post"
        with model.hooks(fwd_hooks=[(name, count)]):
            assert model.ask("what?", clip.sound, max_new_tokens=4) == bare
    inputs = model.inputs("what?", clip.sound)
    text = int((inputs["input_ids"] != model.processor.audio_token_id).sum())
    assert len(touched) > 2 and touched == [text, *[1] * (len(touched) - 1)]


@torch.no_grad()
def test_clips_encoded_with_a_dictionary_are_not_taken_for_others(model: Any, clips: Any) -> None:
    inputs = model.inputs("what?", clips[0].sound)
    asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    dictionary = random_at(ENCODER, 16)
    before = model.encode_audio(inputs)
    with spliced(model, dictionary, error=False):
        within = model.encode_audio(inputs)
        with pytest.raises(PalscopeError, match="another dictionary spliced in"):
            model(asked | {"audio": before})
        torch.testing.assert_close(model(asked | {"audio": within}), model(inputs), **CLOSE)
    with pytest.raises(PalscopeError, match="another dictionary spliced in"):
        model(asked | {"audio": within})
    above = random_at("blocks.1.hook_resid_post", 32)
    with spliced(model, above):
        model(asked | {"audio": before})  # clips are encoded below it


def test_what_does_not_belong_is_refused_by_name(
    model: Any, folder: Path, clips: Any, store: Any
) -> None:
    inputs = model.inputs("what?", clips[0].sound)

    def refused(dictionary: Dictionary, message: str, error: type = PalscopeError) -> None:
        with pytest.raises(error, match=message), spliced(model, dictionary):
            model(inputs)

    refused(random_at(ENCODER, 8), r"rows of 16 numbers; this dictionary takes 8, at audio_blocks")
    refused(random_at("blocks.9.hook_resid_post", 8), "no hook point 'blocks.9", HookError)
    refused(random_at("blocks.1.attn.hook_pattern", 8), "belongs to no site")
    refused(random_at(ENCODER, 16).train(), "in training mode")
    nowhere = random_at(ENCODER, 16)
    nowhere.about = {}
    refused(nowhere, r"about\['hook_point'\] is missing")
    refused(random_at("blocks.1.mlp.hook_in", 32, d_out=32), r"about\['hook_point_out'\]")
    wide = random_at("blocks.1.mlp.hook_in", 32, **MLP | {"d_out": 9})
    refused(wide, r"rows of 32 numbers; the dictionary at blocks.1.mlp.hook_in gives \d+ of 9")
    mine = random_at(ENCODER, 16, record=store.record)
    with spliced(model, mine):
        refused(random_at(ENCODER, 16), "has a dictionary spliced in already")
        other = Route.lal(tiny.LAYERS, [0])
        told = "another route than the dictionary at audio_blocks"
        with pytest.raises(HookError, match=told), model.route(other):
            model(inputs)
        model(inputs)
    mine.about["record"] = {**store.record, "weights": {"checkpoint": {"sha256": "0"}}}
    refused(mine, "is of another model or route")
    with pytest.raises(HookError, match="did not fire"), spliced(model, random_at(ENCODER, 16)):
        pass
    with pytest.raises(PalscopeError, match="give at least one dictionary"), spliced(model):
        pass
    assert not any("hook_sae" in name for name in model.hook_dict)
    assert not any(point.has_hooks() for point in model.hook_dict.values())


@torch.no_grad()
def test_seconds_name_the_tokens_of_a_feature(model: Any, clips: Any) -> None:
    """A second of sound in the encoder, of one latent: 20 ms a token."""
    inputs = model.inputs("what?", clips[1].sound)
    acts = f"{ENCODER}.hook_sae_acts_post"
    with spliced(model, random_at(ENCODER, 16)):
        _, cache = model.run_with_cache(inputs, names_filter=[acts])
        before = cache[acts][0]
        latent = int((before[20:40] > 0).sum(0).argmax())
        place = Address("feature", Sound(0.4, 0.8), features=(latent,))
        with intervene(model, inputs, [Patch(place, Zero())]) as (where,):
            seen: list[torch.Tensor] = []
            hook = f"{ENCODER}.hook_sae_acts_post"
            model.run_with_hooks(inputs, fwd_hooks=[(hook, lambda t, hook: seen.append(t[0]))])
    wanted = before.clone()
    wanted[20:40, latent] = 0
    assert not torch.equal(wanted, before) and torch.equal(seen[0], wanted)
    assert where.covered[["first", "last", "start_s", "end_s"]].iloc[0].tolist() == [
        *(20, 39),
        *(pytest.approx(0.4), pytest.approx(0.8)),
    ]


@torch.no_grad()
def test_sound_that_skips_the_feed_forward_network_skips_its_transcoder() -> None:
    """Behind a norm of its own (Gemma 2) what was fed stands among tokens that were not."""
    model = make_hooked(vocabulary.tokenizer(), tiny.ROUTES["queries"], "gemma2")
    inputs = model.inputs("what?", noise(1.0))
    about = MLP | {"streams": ["text", "frames"]}
    transcoder = random_at("blocks.1.mlp.hook_in", 32, **about)
    error = "blocks.1.mlp.hook_in.hook_sae_error"
    bare = model(inputs)
    with spliced(model, transcoder):
        logits, cache = model.run_with_cache(inputs, names_filter=[error])
    torch.testing.assert_close(logits, bare, **CLOSE)
    columns = model.layout(inputs).layer_columns(model.current_route, 1).running[0]
    text = inputs["input_ids"][0][columns] != model.processor.audio_token_id
    assert torch.equal((cache[error][0] != 0).any(-1), text) and not text.all()
