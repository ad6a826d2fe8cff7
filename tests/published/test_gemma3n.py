"""Gemma 3n: four streams a token, inputs to each layer, shared keys, 188 places a clip."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import palscope
from palscope._models import PalscopeConfig, PalscopeForConditionalGeneration
from palscope._models.families import sliding_window
from palscope._models.scoring import prompt_batch
from palscope._published.gemma3n import BlindTower
from palscope._routing import Route
from palscope._verify.tolerance import PER_LAYER, rounding
from palscope.errors import CheckpointError, HookError, PalscopeError, RouteError
from palscope.interventions import Address, Knockout, Patch, Sound, Text, Zero, intervene
from palscope.interventions._cells import run_cells, run_cells_plainly
from palscope.measures._attention_mass import attention_mass
from palscope.measures._logit_lens import logit_lens
from tests.double import CLOSE, Double, as_default, doubled
from tests.published.tiny import gemma3n as tiny

RATE = 16_000
QUESTION = "what do you hear ?"


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=round(seconds * RATE))
    return (0.1 * samples).astype(np.float32)


def own_inputs(question: str, clip: np.ndarray) -> dict[str, Tensor]:
    """A question through the published processor, whose chat format begins with a start mark."""
    processor: Any = tiny.processor()
    content = [{"type": "audio"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    words = {"add_special_tokens": False}
    made = processor(
        text=text, audio=[clip], sampling_rate=RATE, return_tensors="pt", text_kwargs=words
    )
    return as_default(made)


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Generator[None, None, None]:
    with Double():
        yield


@pytest.fixture(scope="module")
def plain() -> Any:
    return doubled(tiny.model)


@pytest.fixture(scope="module")
def hooked() -> Any:
    return palscope.load(doubled(tiny.model), processor=tiny.processor())


@pytest.fixture(scope="module")
def given() -> dict[str, Tensor]:
    """One clip of 2.3 s, through the published processor."""
    return own_inputs(QUESTION, noise(2.3))


@pytest.fixture(scope="module")
def inputs(hooked: Any) -> dict[str, Tensor]:
    return hooked.inputs(QUESTION, noise(2.3))


def is_sound(hooked: Any, inputs: dict[str, Tensor]) -> Tensor:
    return inputs["input_ids"] == hooked.model.audio_token_id


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, **CLOSE)


@contextmanager
def before_layers(plain: Any, edit: Callable[[int, Any, Any], Any]) -> Generator[None, None, None]:
    """Within, `edit` of a layer's number, streams and keywords gives those that it takes."""

    def hook(index: int) -> Any:
        def before(_module: Any, args: Any, kwargs: Any) -> Any:
            streams, kwargs = edit(index, args[0], kwargs)
            return (streams, *args[1:]), kwargs

        return before

    layers = plain.model.language_model.layers
    handles = [
        layer.register_forward_pre_hook(hook(i), with_kwargs=True) for i, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# -- words and places -----------------------------------------------------------------------------


def test_places_past_a_clip_s_end_are_the_class_s_own_filling(
    hooked: Any, plain: Any, inputs: dict[str, Tensor], given: dict[str, Tensor]
) -> None:
    changed = inputs["input_ids"] != given["input_ids"]
    assert int(changed.sum()) == 188 - 15
    assert bool((inputs["input_ids"][changed] == tiny.config().text_config.vocab_size - 1).all())
    entered: list[Tensor] = []
    handle = plain.model.language_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: entered.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        plain(**given)
        handle.remove()
        words = ~is_sound(hooked, inputs)
        got = hooked.model.embed(inputs["input_ids"])
        # The end of the sound and the filling come from the audio tower's own table.
        torch.testing.assert_close(got[words], entered[0][words], **CLOSE)
        assert not torch.equal(
            got[changed], plain.model.get_input_embeddings()(inputs["input_ids"][changed])
        )


@torch.no_grad()
def test_logits_are_the_plain_class_s(
    hooked: Any, plain: Any, inputs: dict[str, Tensor], given: dict[str, Tensor]
) -> None:
    wanted = plain(**given).logits
    assert wanted.std() > 1
    close(hooked(inputs), wanted)


@torch.no_grad()
def test_a_clip_is_heard_as_if_it_were_alone(hooked: Any) -> None:
    """In the plain class 1.3 s have a token more beside a longer clip."""
    clips = [noise(7.9), noise(2.3, 1), noise(1.3, 2)]
    batch = prompt_batch(
        hooked.processor, [(clips[:1], QUESTION), (clips[1:], f"again {QUESTION}"), ([], "what ?")]
    )
    together = hooked.encode_audio(batch)
    assert together.frames == (50, 15, 8)
    for clip, tokens, count in zip(clips, together.streams["frames"], (50, 15, 8), strict=True):
        alone = hooked.encode_audio(hooked.inputs(QUESTION, clip))
        assert torch.equal(alone.streams["frames"][0], tokens[:count])
    alone = hooked(hooked.inputs(QUESTION, clips[0]))[0]
    close(hooked(batch)[0, -len(alone) :], alone)


# -- routes and shared keys -----------------------------------------------------------------------


@torch.no_grad()
def test_sound_above_the_last_keys_of_its_own_does_nothing(
    hooked: Any, inputs: dict[str, Tensor]
) -> None:
    text = ~is_sound(hooked, inputs)
    whole = hooked(inputs)[text]
    assert hooked.model.text_config.num_kv_shared_layers == 2
    for layer in range(5):
        with hooked.route(hooked.current_route.frozen_from(layer)):
            change = (hooked(inputs)[text] - whole).abs().max()
        assert (change > 1) == (layer < 2)
        assert change < CLOSE["atol"] or layer < 2


@pytest.mark.parametrize("muted", [(4,), (3, 4), (0,), (0, 1, 3), (2, 3, 4)], ids=str)
@torch.no_grad()
def test_muted_layers_are_layers_in_which_the_mask_hides_sound(
    hooked: Any,
    plain: Any,
    inputs: dict[str, Tensor],
    given: dict[str, Tensor],
    muted: tuple[int, ...],
) -> None:
    """Above, text reads the keys of layers 1 and 2; what is muted there is hidden from them."""
    sound = is_sound(hooked, inputs)
    config = hooked.model.text_config
    places = torch.arange(sound.shape[1])
    kept: dict[int, Tensor] = {}

    def hide(index: int, streams: Tensor, kwargs: Any) -> Any:
        # Sound does not change where it is muted: it enters the next layer as it entered here.
        if index - 1 in muted:
            streams = torch.where(sound[None, ..., None], kept[index - 1], streams)
        kept[index] = streams
        if index in muted:
            seen = places[:, None] >= places
            window = sliding_window(config, index)
            if window is not None:
                seen &= places[:, None] - places < window
            seen = seen[None] & (~sound[:, None, :] | sound[:, :, None])
            closed = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]
            kwargs = {**kwargs, "attention_mask": closed}
        return streams, kwargs

    with before_layers(plain, hide):
        wanted = plain(**given).logits[~sound]
    assert (wanted - plain(**given).logits[~sound]).abs().max() > 0.1
    with hooked.route(hooked.current_route.mute("frames", muted)):
        got = hooked(inputs)[~sound]
        table: Any = attention_mass(hooked, inputs)
    close(got, wanted)
    heard = table[table["pathway"] == "frames"].groupby("layer")["mass"].sum()
    assert set(heard.index) == set(range(5)) - set(muted)


@torch.no_grad()
def test_sound_that_only_attends_is_the_plain_class_s_without_its_feed_forward(
    hooked: Any, plain: Any, inputs: dict[str, Tensor], given: dict[str, Tensor]
) -> None:
    sound = is_sound(hooked, inputs)
    handles = [
        layer.mlp.register_forward_hook(lambda _m, _a, out: out.masked_fill(sound[..., None], 0.0))
        for layer in plain.model.language_model.layers
    ]
    wanted = plain(**given).logits
    for handle in handles:
        handle.remove()
    assert (wanted - plain(**given).logits).abs().max() > 1
    with hooked.route(hooked.current_route.with_audio_queries()):
        close(hooked(inputs), wanted)
        # What the last word's network adds is patched there, not in a sound's place.
        cells = [[], [Patch(Address("mlp_out", Text(-1), layers=(4,)), Zero())]]
        logits = run_cells_plainly(hooked, inputs, cells)
    assert (logits[1] - logits[0]).abs().max() > 1


def test_a_layer_without_keys_cannot_show_what_is_absent_where_they_are_made(hooked: Any) -> None:
    for muted in ((2,), (1, 4), (0, 1)):
        with pytest.raises(RouteError, match="has no keys of its own"):
            hooked.set_route(hooked.current_route.mute("frames", muted))
    with pytest.raises(RouteError, match="no projector"):
        hooked.set_route(Route.lal(5))


ROUTES = {
    "published": lambda route: route,
    "frozen": lambda route: route.frozen_from(1),
    "absent above": lambda route: route.mute("frames", (4,)),
    "absent below": lambda route: route.mute("frames", (0,)),
    "attending": lambda route: route.with_audio_queries(),
}


@pytest.mark.parametrize("name", ROUTES)
@torch.no_grad()
def test_cached_decoding_is_the_whole_prompt_again(
    hooked: Any, inputs: dict[str, Tensor], name: str
) -> None:
    model = hooked.model
    with hooked.route(ROUTES[name](hooked.current_route)):
        out = model.generate(
            **inputs,
            max_new_tokens=3,
            min_new_tokens=3,
            do_sample=False,
            suppress_tokens=[model.audio_token_id],
            return_dict_in_generate=True,
            output_logits=True,
        )
        ids = out.sequences
        whole = model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits
    close(torch.stack(out.logits, 1), whole[:, -4:-1])


@pytest.mark.parametrize("name", ROUTES)
def test_runs_that_begin_late_are_runs_from_the_bottom(
    hooked: Any, inputs: dict[str, Tensor], name: str
) -> None:
    last = [
        Patch(Address(site, Text(-1), layers=(3,)), Zero()) for site in ("resid_post", "mlp_out")
    ]
    word = [Patch(Address("resid_pre", Text("what"), (i,)), Zero()) for i in (0, 0, 1, 2, 4)]
    cut = [
        Knockout(Address("pattern", Sound(), layers=(i,))) for i in (2, 4) if name != "absent above"
    ]
    with hooked.route(ROUTES[name](hooked.current_route)):
        cells = [[], *([each] for each in (*last, *word, *cut))]
        late = run_cells(hooked, inputs, cells)
        wanted = run_cells_plainly(hooked, inputs, cells)
    close(late, wanted)
    assert ((wanted[1:] - wanted[0]).abs().amax(1) > 0.01).sum() >= 6


# -- hooks ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_residual_state_is_all_four_streams(
    hooked: Any, plain: Any, inputs: dict[str, Tensor], given: dict[str, Tensor]
) -> None:
    streams: dict[int, Tensor] = {}

    def keep(index: int, entered: Tensor, kwargs: Any) -> Any:
        streams[index] = entered
        return entered, kwargs

    with before_layers(plain, keep):
        plain(**given)
    names = [f"blocks.{i}.hook_resid_{which}" for i in range(4) for which in ("pre", "post")]
    _, cache = hooked.run_with_cache(inputs, names_filter=names)
    for layer in range(4):
        for index, name in ((layer, "pre"), (layer + 1, "post")):
            wanted = torch.cat(list(streams[index]), -1)
            close(cache[f"blocks.{layer}.hook_resid_{name}"], wanted)
    # A patch is of all of them.
    sound = is_sound(hooked, inputs)

    def silence(index: int, entered: Tensor, kwargs: Any) -> Any:
        return (entered.masked_fill(sound[..., None], 0.0) if index == 1 else entered), kwargs

    with before_layers(plain, silence):
        wanted = plain(**given).logits[~sound]
    patch = Patch(Address("resid_pre", Sound(), layers=(1,)), Zero())
    with intervene(hooked, inputs, [patch]):
        close(hooked(inputs)[~sound], wanted)
    states = hooked.model(**inputs, output_hidden_states=True).hidden_states
    close(states[1], cache["blocks.1.hook_resid_pre"])
    with hooked.route(hooked.current_route.frozen_from(1)):
        _, cache = hooked.run_with_cache(inputs, names_filter="blocks.1.attn.hook_audio_state")
    close(cache["blocks.1.attn.hook_audio_state"], states[1][sound][None])


@torch.no_grad()
def test_the_logit_lens_merges_the_streams_as_the_class_does(
    hooked: Any, plain: Any, inputs: dict[str, Tensor], given: dict[str, Tensor]
) -> None:
    """What the class would say if it ended behind a layer."""
    table: Any = logit_lens(hooked, inputs, answers=[65, 207], tokens=(-1,))
    decoder = plain.model.language_model
    layers = decoder.layers
    for layer in (0, 2, 4):
        decoder.layers = nn.ModuleList([*layers[: layer + 1], *[Passing()] * (4 - layer)])
        wanted = plain(**given).logits[0, -1]
        found = table[(table["layer"] == layer) & (table["site"] == "resid_post")]
        got = found.set_index("id")["logit"]
        np.testing.assert_allclose(got[[65, 207]], wanted[[65, 207]], **CLOSE)
    decoder.layers = layers


class Passing(nn.Module):
    """A layer that does nothing."""

    def forward(self, streams: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return streams


def test_hooks_that_cannot_tell_the_truth_are_refused(
    hooked: Any, inputs: dict[str, Tensor]
) -> None:
    """Hugging Face's attention hands its pattern out when it has used it."""
    for name in ("blocks.0.attn.hook_pattern", "blocks.0.attn.hook_attn_scores"):
        assert not hooked.can_fire(name)
        with pytest.raises(HookError, match="cannot fire"):
            hooked.run_with_hooks(inputs, fwd_hooks=[(name, lambda tensor, hook: tensor)])
    with hooked.route(hooked.current_route.frozen_from(0)):
        fires = [i for i in range(5) if hooked.can_fire(f"blocks.{i}.attn.hook_audio_k")]
        assert fires == [0, 1, 2]
        with pytest.raises(HookError, match="reads those of layer 2"):
            hooked.run_with_cache(inputs, names_filter="blocks.4.attn.hook_audio_v")


# -- files ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_sound_needs_no_timm(
    hooked: Any, inputs: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder holds weights of a vision tower, which nobody misses."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    doubled(tiny.model).save_pretrained(tmp_path)
    tiny.processor().save_pretrained(tmp_path)
    again = palscope.load(tmp_path)
    # Tables of angles are made anew, and so rounded to single precision on one side alone.
    wanted = hooked(inputs)
    tolerance = rounding(PER_LAYER * 7, float(wanted.abs().max()))
    torch.testing.assert_close(again(inputs), wanted, **tolerance)
    tower = again.model.published.model.vision_tower
    assert isinstance(tower, BlindTower)
    with pytest.raises(PalscopeError, match="install timm"):
        tower(torch.zeros(1))


def test_palscope_s_own_models_do_not_take_this_decoder() -> None:
    config = PalscopeConfig(text_config=tiny.config().text_config)
    with pytest.raises(CheckpointError, match="published models alone"):
        PalscopeForConditionalGeneration(config)
