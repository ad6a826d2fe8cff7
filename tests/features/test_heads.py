"""What heads read of sound, against Hugging Face's eager attention and a second implementation."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GenerationMixin

import palscope
from palscope._features import heads
from palscope._features.rows import RowReader
from palscope._models.scoring import greedy_answers
from palscope._routing import Route
from palscope.errors import PalscopeError
from palscope.features import collect_activations
from palscope.interventions import Address, Sound, Text
from palscope.measures import _attention_rows, attention_mass
from tests import tiny, vocabulary
from tests.dashboards.conftest import saved
from tests.published.contract import RATE, noise
from tests.reference.model import Reference

PATTERN = Address("pattern", queries=Text(-1))
CLOSE: Any = {"atol": 1e-4, "rtol": 0}


def test_where_all_sound_runs_it_is_hugging_face_s_eager_attention(
    clips: Any, tmp_path: Path
) -> None:
    """Eight padded clips at once, against the plain decoder on each alone."""
    model = palscope.load(saved(Route.plits(tiny.LAYERS), tmp_path / "plits"))
    store = collect_activations(model, clips, [PATTERN], tmp_path / "run", batch_size=8)
    plain: Any = tiny.decoder("llama", vocab_size=vocabulary.COUNT)
    plain.set_attn_implementation("eager")
    wanted: list[Tensor] = []
    for clip in clips:
        inputs = model.inputs(clip.question, clip.sound)
        sound = inputs["input_ids"][0] == model.model.config.audio_token_id
        with torch.no_grad():
            embedded = model.model(**inputs, output_hidden_states=True).hidden_states[0]
            out = plain(inputs_embeds=embedded, output_attentions=True)
        # [layers, heads, keys] of the last query
        whole = torch.stack([each[0, :, -1] for each in out.attentions])
        wanted.append(whole.flatten(0, 1)[:, sound].T)
    rows = store["pattern.frames"]
    torch.testing.assert_close(rows[:], torch.cat(wanted), **CLOSE)
    assert rows.rows["clip"].value_counts(sort=False).tolist() == [len(each) for each in wanted]
    assert rows.heads == [(layer, head) for layer in range(tiny.LAYERS) for head in range(4)]
    assert rows[:].max() > 0.2  # not the same everywhere


@pytest.mark.parametrize("route", [Route.lal(tiny.LAYERS), Route.pal(tiny.LAYERS, [0, 2])])
def test_where_sound_is_keys_only_it_is_what_a_second_implementation_computes(
    clips: Any, tmp_path: Path, route: Route
) -> None:
    """Queries times keys by hand, in double precision, a clip at a time, for every head."""
    model = palscope.load(saved(route, tmp_path / "model"))
    store = collect_activations(model, clips, [PATTERN], tmp_path / "run", batch_size=8)
    weights = {
        n.replace("._original_component", ""): w for n, w in model.model.state_dict().items()
    }
    reference = Reference(weights, model.model.config.to_dict())
    told = route.to_dict()
    levels = {row["name"]: row["levels"] for row in told["streams"]}
    wanted: dict[str, list[Tensor]] = {name: [] for name in levels}
    for clip in clips:
        inputs = model.inputs(clip.question, clip.sound)
        ids = inputs["input_ids"][0].tolist()
        mel = inputs["input_features"][0, :, : int(inputs["feature_lengths"][0])]
        with torch.no_grad():
            _, trace = reference(ids, [mel], told)
        tokens = reference.layout(ids, [-(-mel.shape[1] // 10)], [mel.shape[1] * 0.01])
        for name, at in levels.items():
            heads: list[Tensor] = []
            for layer, level in enumerate(at):
                here = {n: levels[n][layer] for n in levels} | {"text": "full"}
                memory = [t for t in tokens if here[t.stream] == "keys"]
                keys = [*memory, *(t for t in tokens if here[t.stream] == "full")]
                if level != "absent":
                    pattern = trace.seen["pattern", layer]["text", len(ids) - 1]
                    heads.append(pattern[:, [key.stream == name for key in keys]])
            wanted[name].append(torch.cat(heads).T)
    assert list(store.hook_points) == [f"pattern.{name}" for name in levels]
    for name, values in wanted.items():
        rows = store[f"pattern.{name}"]
        torch.testing.assert_close(rows[:].double(), torch.cat(values), **CLOSE)
        seen = [layer for layer, level in enumerate(levels[name]) if level != "absent"]
        assert rows.heads == [(layer, head) for layer in seen for head in range(4)]
        assert set(rows.rows["stream"]) == {name}


def test_a_head_that_does_not_read_a_stream_has_no_column(store: Any, model: Any) -> None:
    """Frames are read in two of the layers: the others are not there, rather than 0."""
    assert store.heads.keys() == {"pattern.frames", "pattern.summary"}
    assert {layer for layer, _ in store["pattern.frames"].heads} == {0, 2}
    assert {layer for layer, _ in store["pattern.summary"].heads} == set(range(tiny.LAYERS))
    assert store["blocks.1.attn.hook_z"].heads is None
    assert store.hook_points["pattern.frames"] == 2 * 4
    frames, summary = (store[f"pattern.{name}"].rows for name in ("frames", "summary"))
    for rows, step in ((frames, 0.1), (summary, 0.3)):
        for (before, after), same in zip(
            pairwise(zip(rows["start"], rows["end"], strict=True)),
            (rows["clip"].diff() == 0)[1:],
            strict=True,
        ):
            assert not same or after[0] == pytest.approx(before[0] + step)
    asked = [(palscope.load_audio(noise(1.0), native_rate=RATE), "what?")]
    with pytest.raises(PalscopeError, match="none of the addressed tokens stands there in layer 1"):
        RowReader(model, [Address("pattern", Sound(stream="frames"), (1,))])(asked)


@pytest.mark.parametrize("block", [1, 2**21])
def test_of_several_queries_it_is_the_largest(
    model: Any, clips: Any, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """All text, one query at a time or all at once; what stands before the clip cannot read it."""
    monkeypatch.setattr(_attention_rows, "_BLOCK", block)
    asked = [(clip.sound, clip.question) for clip in clips[:3]]
    found = RowReader(model, [Address("pattern", Sound(), (0, 2), heads=(1, 3))])(asked)
    for (sound, question), rows in zip(asked, found, strict=True):
        table: Any = attention_mass(model, model.inputs(question, sound), queries="text")
        for name in ("frames", "summary"):
            mine = table[(table["pathway"] == name) & table["head"].isin((1, 3))]
            mine = mine[mine["layer"].isin((0, 2))]
            most = mine.groupby(["layer", "head", "key"])["mass"].max().unstack("key")
            np.testing.assert_allclose(rows[f"pattern.{name}"].values.T, most, atol=1e-5)
            last = mine[mine["query"] == mine["query"].max()]
            last = last.groupby(["layer", "head", "key"])["mass"].max().unstack("key")
            assert (most - last).to_numpy().max() > 0.01


def test_the_layer_behind_the_last_head_does_not_run(model: Any, clips: Any) -> None:
    ran: list[int] = []
    handles = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(model.model.language_model.model.layers)
    ]
    at = Address("pattern", layers=(1,), queries=Text(-1))
    RowReader(model, [at])([(clips[0].sound, "?")])
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


def test_patterns_that_a_hook_changes_are_stored_as_changed(model: Any, clips: Any) -> None:
    def even(pattern: Tensor, hook: Any) -> Tensor:
        return torch.full_like(pattern, 1 / pattern.shape[-1])

    asked = [(clips[1].sound, "what?")]
    (before,) = RowReader(model, [PATTERN])(asked)
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", even)]):
        (after,) = RowReader(model, [PATTERN])(asked)
    values, old = (each["pattern.summary"].values for each in (after, before))
    assert len(values[:, 4:8].unique()) == 1 < len(old[:, 4:8].unique())
    torch.testing.assert_close(values[:, :4], old[:, :4])


# -- encoder–decoders ------------------------------------------------------------------------------


class Transcriber:
    """A tiny published model, and its class by itself."""

    def __init__(self, name: str) -> None:
        made: Any = importlib.import_module(f"tests.published.tiny.{name}")
        self.hooked = palscope.load(made.model(), processor=made.processor())
        self.plain: Any = made.model()
        self.plain.set_attn_implementation("eager")
        self.extractor: Any = made.processor().feature_extractor
        self.heard = {"whisper": "input_features", "moonshine": "input_values"}[name]

    def crossed(self, samples: np.ndarray, tokens: int, most: int) -> tuple[Tensor, int]:
        """`[tokens of the clip, layers × heads]`, the most that a query gives which predicts one of
        the words that the plain class writes; and how many words those are."""
        given = {
            self.heard: torch.as_tensor(
                self.extractor(samples, sampling_rate=RATE, return_tensors="pt")[self.heard]
            )
        }
        processor: Any = self.hooked.processor
        inputs = processor(processor.chat(processor.any_question), [samples], sampling_rate=RATE)
        start = inputs["input_ids"][:, (inputs["input_ids"] < self.plain.config.vocab_size)[0]]
        chosen: Any = {"do_sample": False, "max_new_tokens": most, "decoder_input_ids": start}
        ids = cast(Any, GenerationMixin).generate(
            self.plain, **given, **chosen, eos_token_id=processor.turn_end
        )
        if ids[0, -1] == processor.turn_end:
            ids = ids[:, :-1]
        with torch.no_grad():
            out = self.plain(**given, decoder_input_ids=ids, output_attentions=True)
        first = start.shape[1] - 1
        last = max(ids.shape[1] - 1, first + 1)
        whole = torch.stack([each[0, :, first:last, :tokens] for each in out.cross_attentions])
        return whole.amax(2).flatten(0, 1).T, last - first


@pytest.mark.parametrize("name", ["whisper", "moonshine"])
def test_a_transcriber_s_are_those_of_the_queries_that_predict_its_words(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transcripts of 7, 3 and no tokens, against the plain class's `cross_attentions`."""
    most, end = (7, 3, 1), Transcriber(name).hooked.processor.turn_end

    def cut_short(*given: Any) -> list[list[int]]:
        answers = greedy_answers(*given[:-1], 7)
        short = [answer[:length] for answer, length in zip(answers, most, strict=False)]
        return [*short[:2], *([end] for _ in short[2:])]

    made = Transcriber(name)
    monkeypatch.setattr(heads, "greedy_answers", cut_short)
    sounds = [noise(1.3), noise(0.7, 1), noise(0.9, 2)]
    asked = [(palscope.load_audio(each, native_rate=RATE), "") for each in sounds]
    reader = RowReader(made.hooked, [PATTERN, Address("encoder_output")])
    for samples, length, found in zip(sounds, most, reader(asked), strict=True):
        rows = found["pattern.frames"]
        wanted, words = made.crossed(samples, len(rows.stream), length)
        torch.testing.assert_close(rows.values, wanted, **CLOSE)
        assert words == length and rows.seconds.max() <= len(samples) / RATE + 0.025
        assert len(found) == 2
    assert reader.heads == {"pattern.frames": [(n, head) for n in range(3) for head in range(4)]}
    text = [PATTERN, Address("resid_post", Text())]
    with pytest.raises(PalscopeError, match="store text in a run of its own"):
        RowReader(made.hooked, text)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        ([Address("pattern", Text())], "a store of patterns holds what heads read of sound"),
        ([PATTERN, Address("pattern", layers=(1,))], "two of the addresses are of pattern"),
        ([Address("pattern", layers=(9,))], "layer 9 does not exist"),
        ([Address("pattern", heads=(9,))], "head 9 does not exist"),
        ([Address("waveform")], "waveform has no vector for each token"),
    ],
)
def test_what_is_no_attention_to_sound_is_refused_before_it_begins(
    model: Any, clips: Any, tmp_path: Path, addresses: list[Address], says: str
) -> None:
    with pytest.raises(PalscopeError, match=says):
        collect_activations(model, clips, addresses, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_attention_that_is_nan_is_told(model: Any, clips: Any) -> None:
    """In the layer behind which the pass ends, so that nothing else would notice."""

    def spoil(scores: Tensor, hook: Any) -> Tensor:
        return scores * float("nan")

    reader = RowReader(model, [Address("pattern", layers=(1,), queries=Text(-1))])
    with (
        model.hooks(fwd_hooks=[("blocks.1.attn.hook_attn_scores", spoil)]),
        pytest.raises(PalscopeError, match=r"pattern.summary holds NaN or infinity"),
    ):
        reader([(clips[0].sound, "what?")])
