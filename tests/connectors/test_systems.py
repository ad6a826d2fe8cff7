"""Every resampler on every route: forward, backward, batches, saving, hooks and interventions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from palscope._hooks import HookedAudioModel
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.interventions import Address, Patch, Scale, Sound, intervene, resolve
from palscope.training._trainer import measure_features
from tests.connectors.systems import ROUTES, SYSTEMS, made, noise

CLIPS = [noise(1.3), noise(0.37, 1), noise(2.05, 2)]
QUESTION = "which sound was it"
LAYERS = {
    "Q-Former": 2,
    "Q-Former in windows": 2,
    "Q-Former of two": 2,
    "LFST": 3,
    "LFST of SSLAM and CLAP": 3,
}
"""Cross-attentions."""


def inputs_of(processor: PalscopeProcessor, clips: list[np.ndarray]) -> dict[str, torch.Tensor]:
    prompts = [processor.chat(QUESTION) for _ in clips]
    return dict(processor(prompts, clips, sampling_rate=16_000))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", SYSTEMS)
def test_training_reaches_every_parameter(name: str, route: str) -> None:
    model, processor = made(name, ROUTES[route])
    model.freeze_bases()
    inputs = inputs_of(processor, CLIPS)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -3:] = inputs["input_ids"][:, -3:]
    model.train()(**inputs, labels=labels).loss.backward()
    for weight_name, weight in model.connector.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), weight_name
        if not weight_name.endswith(("key.bias", "query.bias", "query.weight", "key.weight")):
            assert weight.grad.any(), weight_name  # of what chooses, a step may leave a part alone


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", SYSTEMS)
@torch.no_grad()
def test_a_batch_gives_each_clips_logits_and_padding_is_never_read(name: str, route: str) -> None:
    model, processor = made(name, ROUTES[route])
    inputs = inputs_of(processor, CLIPS)
    together = model(**inputs).logits[:, -1]
    alone = [model(**inputs_of(processor, [clip])).logits[0, -1] for clip in CLIPS]
    torch.testing.assert_close(together, torch.stack(alone), atol=2e-4, rtol=1e-4)
    assert (together[0] - together[2]).abs().max() > 1e-3
    if "SSLAM" in name:
        return  # each clip is filled up to a window, as these encoders were trained
    for row, length in zip(inputs["input_features"], inputs["feature_lengths"], strict=True):
        row[:, int(length) :] = 7.0
    assert torch.equal(model(**inputs).logits[:, -1], together)


@pytest.mark.parametrize("name", SYSTEMS)
@torch.no_grad()
def test_a_saved_model_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    model, processor = made(name, ROUTES["pal"])
    model.connector.standardise(
        *torch.rand(2, sum(each.width for each in model.encoder.emits)).add(0.5)
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = PalscopeForConditionalGeneration.from_pretrained(tmp_path)
    again = PalscopeProcessor.from_pretrained(tmp_path)
    wanted = model(**inputs_of(processor, CLIPS)).logits
    assert torch.equal(loaded(**inputs_of(again, CLIPS)).logits, wanted)
    half = PalscopeForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half(**inputs_of(again, CLIPS)).logits.isfinite().all()


@pytest.mark.parametrize("name", SYSTEMS)
@torch.no_grad()
def test_the_hooked_model_is_the_plain_one_and_every_hook_fires(name: str) -> None:
    model, processor = made(name, ROUTES["pal"])
    inputs = inputs_of(processor, CLIPS)
    wanted = model(**inputs).logits
    hooked = HookedAudioModel(model, processor)
    assert torch.equal(hooked(inputs), wanted)
    patterns = [n for n in hooked.hook_dict if n.startswith("audio_") and "pattern" in n]
    attentions = [f"audio_attn_{i}.hook_pattern" for i in range(LAYERS.get(name, 0))]
    assert sorted(patterns) == attentions
    filtered = attentions or ["audio_pool.hook_out"]
    logits, cache = hooked.run_with_cache(inputs, names_filter=filtered)
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
    for attention in attentions:
        sums = cache[attention].sum(-1)
        torch.testing.assert_close(sums[sums > 0], torch.ones_like(sums[sums > 0]))
    offered = {
        hooked.hook_dict[n].name
        for n in hooked.hook_dict
        if hooked.can_fire(n) and hooked._gated_hook_reason(hooked.hook_dict[n].name) is None
    }
    fired: set[str] = set()
    with hooked.hooks([(lambda n: n in offered, lambda tensor, hook: fired.add(hook.name))]):
        hooked(inputs)
    assert fired == offered
    assert torch.equal(hooked(inputs), wanted)


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_an_edited_pattern_is_what_the_latents_read_by(name: str) -> None:
    hooked = HookedAudioModel(*made(name, ROUTES["lal"]))
    inputs = inputs_of(hooked.processor, CLIPS)
    before = hooked(inputs)
    hook = f"audio_attn_{LAYERS[name] - 1}.hook_pattern"
    same = hooked.run_with_hooks(inputs, fwd_hooks=[(hook, lambda pattern, hook: pattern)])
    torch.testing.assert_close(same, before, atol=1e-4, rtol=1e-4)
    other = hooked.run_with_hooks(
        inputs, fwd_hooks=[(hook, lambda pattern, hook: pattern.flip(-1))]
    )
    assert (other - before)[:, -1].abs().max() > 1e-3
    assert torch.equal(hooked(inputs), before)


@pytest.mark.parametrize("name", SYSTEMS)
@torch.no_grad()
def test_seconds_address_the_latents_that_stand_for_them(name: str) -> None:
    hooked = HookedAudioModel(*made(name, ROUTES["lal"]))
    inputs = hooked.inputs(QUESTION, Waveform(CLIPS[2], 16_000, "noise"))
    grid = hooked.model.frame_grid
    address = Address("connector_output", Sound(0.5, 1.0, "frames"))
    (covered,) = resolve(hooked, inputs, address).covered.to_dict("records")
    spans = [grid.span(i) for i in range(grid.tokens(2.05))]
    own = [i for i, (a, b) in enumerate(spans) if min(b, 1.0) - max(a, 0.5) > 1e-6]
    assert (covered["first"], covered["last"], covered["tokens"]) == (own[0], own[-1], len(own))
    with intervene(hooked, inputs, [Patch(address, Scale(0.0))]):
        got = hooked(inputs)[:, -1]
    audio = hooked.encode_audio(inputs)
    audio.streams["frames"][:, own] = 0
    rest = {k: v for k, v in inputs.items() if k in ("input_ids", "attention_mask")}
    torch.testing.assert_close(got, hooked({**rest, "audio": audio})[:, -1], atol=1e-5, rtol=1e-5)
    assert (got - hooked(inputs)[:, -1]).abs().max() > 1e-4


@torch.no_grad()
def test_each_encoders_output_is_addressed_in_seconds() -> None:
    hooked = HookedAudioModel(*made("LFST", ROUTES["lal"]))
    inputs = hooked.inputs(QUESTION, CLIPS[2])
    address = Address("encoder_output", Sound(0.5, 1.0))
    covered = resolve(hooked, inputs, address).covered
    assert covered["first"].tolist() == [2 * 3, 25]  # 0.48 s of 160 ms with two rows; 0.5 of 20 ms
    assert covered["last"].tolist() == [2 * 6 + 1, 49]
    names = ["audio_standard_1.hook_out", "audio_attn_1.hook_in"]
    _, before = hooked.run_with_cache(inputs, names_filter=names)
    with intervene(hooked, inputs, [Patch(address, Scale(0.0))]):
        _, after = hooked.run_with_cache(inputs, names_filter=names)
    moved = (after[names[0]] - before[names[0]]).abs().amax(-1)[0].nonzero()[:, 0].tolist()
    assert moved == list(range(25, 50))
    places = (after[names[1]] - before[names[1]]).abs().amax((1, 2)).nonzero()[:, 0].tolist()
    # Before the second layer, places know the first encoder's tokens: 0.48 to 1.12 s, ± 0.48 s.
    assert places == [0, 1, 2, 3, 4]


@torch.no_grad()
def test_a_windowed_q_former_hears_sound_as_it_comes() -> None:
    """Groups of 1.2 s (two latents a window of 0.4 s, three a summary) over an encoder's of 1 s."""
    model, processor = made("Q-Former in windows", ROUTES["pal"])
    processor.feature_extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    hooked = HookedAudioModel(model, processor)
    samples = noise(3.3)
    wanted = hooked(hooked.inputs(QUESTION, samples))[:, -1]
    for chunk in (5_000, 20_000, 52_800):
        with hooked.audio_stream() as stream:
            for first in range(0, len(samples), chunk):
                stream.feed(samples[first : first + chunk])
            with stream.asking(QUESTION) as asked:
                table = hooked.layout(asked).table(0)
                got = hooked(asked)[:, -1]
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
        whole = hooked.layout(hooked.inputs(QUESTION, samples)).table(0)
        np.testing.assert_allclose(table["end_s"].dropna(), whole["end_s"].dropna(), atol=1e-5)


@pytest.mark.parametrize("name", ["pool of two", "Q-Former", "Q-Former of two", "LFST"])
def test_latents_that_read_further_cannot_hear_sound_as_it_comes(name: str) -> None:
    hooked = HookedAudioModel(*made(name, ROUTES["lal"]))
    with pytest.raises(PalscopeError, match="Give it the clip at once"):
        hooked.audio_stream()


@pytest.mark.parametrize("name", SYSTEMS)
@torch.no_grad()
def test_decoding_with_a_cache_writes_what_the_whole_prompt_gives(name: str) -> None:
    model, processor = made(name, ROUTES["pal"])
    inputs = inputs_of(processor, CLIPS)
    first = model(**inputs, use_cache=True)
    word = first.logits[:, -1:].argmax(-1)
    step = model(input_ids=word, past_key_values=first.past_key_values).logits[:, -1]
    longer = {**inputs, "input_ids": torch.cat([inputs["input_ids"], word], 1)}
    longer["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
    torch.testing.assert_close(step, model(**longer).logits[:, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["pool", "LFST"])
@torch.no_grad()
def test_measured_features_standardise_every_encoders_tokens(name: str) -> None:
    model, processor = made(name, ROUTES["lal"])
    examples: Any = [SimpleNamespace(waveforms=(clip,)) for clip in CLIPS]
    model.connector.standardise(*measure_features(model, processor, examples, len(CLIPS)))
    inputs = inputs_of(processor, CLIPS)
    outputs = model.encoder.outputs(inputs["input_features"], inputs["feature_lengths"])
    standards: Any = [model.connector.pool, *model.connector.others]
    for standard, (states, lengths) in zip(standards, outputs, strict=True):
        tokens = standard.standard(states, lengths)
        real = torch.cat([row[:length] for row, length in zip(tokens, lengths, strict=True)])
        torch.testing.assert_close(real.mean(0), torch.zeros(real.shape[1]), atol=1e-4, rtol=0)
        deviation = real.std(0, correction=0)
        torch.testing.assert_close(deviation, torch.ones(real.shape[1]), atol=1e-3, rtol=0)
