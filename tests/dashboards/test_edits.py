"""Edits: their text, and what they do inside a model, against interventions written by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from palscope._routing import Route
from palscope.audio import Waveform
from palscope.errors import AudioError, PalscopeError
from palscope.interventions import Address, Knockout, Sound, intervene
from tests import tiny
from tests.hooks.conftest import noise

SOUND = Waveform(noise(1.9, 3), 16_000, "a clip")
OTHER = Waveform(noise(2.5, 5), 16_000, "another")


@pytest.fixture(scope="module")
def pal() -> Any:
    from transformers import AutoTokenizer

    from palscope._models.base_weights import find_base
    from tests.hooks.conftest import make_hooked

    tokenizer = AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct"))
    return make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), "llama")


def of_name(name: str) -> Waveform:
    assert name == "another"
    return OTHER


def last(model: Any, edits: Any, sound: Waveform = SOUND) -> torch.Tensor:
    """The logits behind the prompt, under edits."""
    from _edits import edited_sound, interventions  # pyright: ignore[reportMissingImports]

    inputs = model.inputs("what?", edited_sound(edits, sound, of_name))
    made = interventions(edits, model, inputs, sound, "what?", of_name)
    with torch.no_grad(), intervene(model, inputs, made):
        return model(inputs)[0, -1]


def by_hand(model: Any, *cuts: Address, sound: Waveform = SOUND) -> torch.Tensor:
    inputs = model.inputs("what?", sound)
    with torch.no_grad(), intervene(model, inputs, [Knockout(cut) for cut in cuts]):
        return model(inputs)[0, -1]


def edit(kind: str, *given: Any, **more: Any) -> Any:
    from _edits import Edit  # pyright: ignore[reportMissingImports]

    return Edit(kind, *given, **more)


def test_edits_are_the_same_from_their_text() -> None:
    from _edits import from_text, to_text  # pyright: ignore[reportMissingImports]

    edits = [
        edit("cut", 0.68, 1.21),
        edit("keep", 0.1, 0.25, ("frames", "summary"), (20, 21, 25), (0, 8)),
        edit("patch", 0.5, 1.0, source="three, seven, one"),
        edit("tokens", 0.5, 1.0, ("summary",), source="silence"),
    ]
    assert from_text(to_text(edits)) == edits and from_text("") == []
    for damaged in ("cut~1-0~~~~", "cut~0-1", "burn~0-1~~~~", "cut~a-b~~~~"):
        with pytest.raises(PalscopeError, match="cannot be read"):
            from_text(damaged)
    with pytest.raises(PalscopeError, match="13 edits; 12 at most"):
        from_text("|".join(["cut~0-1~~~~"] * 13))


def test_edits_say_what_they_are() -> None:
    said = {
        "cut 0.68–1.21 s": edit("cut", 0.68, 1.21),
        "keep only 0.00–0.50 s of summary, layers 20–22, 25, head 3": edit(
            "keep", 0, 0.5, ("summary",), (20, 21, 22, 25), (3,)
        ),
        "0.00–0.50 s: sound of silence, encoded anew": edit("patch", 0, 0.5, source="silence"),
        "0.00–0.50 s: tokens of noise, encoded apart": edit("tokens", 0, 0.5, source="noise"),
    }
    assert {str(each): text for text, each in said.items()} == {text: text for text in said}


def test_a_cut_is_a_knockout_where_text_sees_the_stream(pal: Any) -> None:
    at = (0.4, 0.9)
    assert torch.equal(last(pal, [edit("cut", *at)]), by_hand(pal, Address("pattern", Sound(*at))))
    # Frames are keys in layers 0 and 2 alone: where none is read, there is nothing to cut.
    wanted = by_hand(
        pal,
        Address("pattern", Sound(*at, "frames"), (2,), (1,)),
        Address("pattern", Sound(*at, "summary"), (1, 2), (1,)),
    )
    got = last(pal, [edit("cut", *at, ("frames", "summary"), (1, 2), (1,))])
    assert torch.equal(got, wanted)
    with pytest.raises(PalscopeError, match="text sees none of it there"):
        last(pal, [edit("cut", *at, ("frames",), (1, 3))])


def test_cuts_stack(pal: Any) -> None:
    both = last(pal, [edit("cut", 0.0, 0.4), edit("cut", 1.0, 1.5, ("summary",))])
    wanted = by_hand(
        pal, Address("pattern", Sound(0, 0.4)), Address("pattern", Sound(1.0, 1.5, "summary"))
    )
    assert torch.equal(both, wanted)


def read(pal: Any, edits: Any) -> dict[tuple[int, int], set[tuple[str, int]]]:
    """By layer and head, the tokens of sound (stream, number) that the last word reads."""
    from _edits import interventions  # pyright: ignore[reportMissingImports]

    from palscope.measures import attention_mass

    inputs = pal.inputs("what?", SOUND)
    made = interventions(edits, pal, inputs, SOUND, "what?", of_name)
    with intervene(pal, inputs, made):
        table: Any = attention_mass(pal, inputs, queries=[-1])
    table = table[(table["clip"] >= 0) & (table["mass"] > 0)]
    layout: Any = pal.layout(inputs).table(0)
    found: dict[tuple[int, int], set[tuple[str, int]]] = {}
    for row in table.itertuples():
        there = layout[(layout["stream"] == row.pathway) & (layout["start_s"] == row.start_s)]
        found.setdefault((row.layer, row.head), set()).add(
            (row.pathway, int(there["token"].iloc[0]))
        )
    return found


def test_keep_only_leaves_the_stretch_s_tokens_where_they_are_meant(pal: Any) -> None:
    heads = pal.cfg.n_heads
    kept = read(pal, [edit("keep", 0.45, 0.75)])
    # 0.1 s a frame, 0.3 s a token of the summary: tokens that reach in belong to the stretch.
    frames, summary = {("frames", n) for n in range(4, 8)}, {("summary", 1), ("summary", 2)}
    for layer in range(tiny.LAYERS):
        for head in range(heads):
            wanted = (frames if layer in (0, 2) else set()) | summary
            assert kept[layer, head] == wanted
    narrow = read(pal, [edit("keep", 0.45, 0.75, ("summary",), (1, 2), (3,))])
    assert narrow == {(1, 3): summary, (2, 3): summary}


def test_other_sound_is_put_in_and_encoded_anew(pal: Any) -> None:
    first, end = round(0.5 * 16_000), round(1.25 * 16_000)
    samples = SOUND.samples.copy()
    samples[first:end] = 0
    silent = Waveform(samples, 16_000, "by hand")
    got = last(pal, [edit("patch", 0.5, 1.25, source="silence")])
    assert torch.equal(got, by_hand(pal, sound=silent))
    samples = SOUND.samples.copy()
    samples[first:end] = OTHER.samples[first:end]
    got = last(pal, [edit("patch", 0.5, 1.25, source="another")])
    assert torch.equal(got, by_hand(pal, sound=Waveform(samples, 16_000, "by hand")))


def test_noise_is_as_loud_as_what_it_replaces(pal: Any) -> None:
    from _edits import edited_sound  # pyright: ignore[reportMissingImports]

    made = edited_sound([edit("patch", 0.5, 1.25, source="noise")], SOUND, of_name).samples
    first, end = round(0.5 * 16_000), round(1.25 * 16_000)
    loudness = [float(np.sqrt(np.mean(each[first:end] ** 2))) for each in (SOUND.samples, made)]
    assert loudness[1] == pytest.approx(loudness[0], rel=0.03)
    assert abs(np.corrcoef(SOUND.samples[first:end], made[first:end])[0, 1]) < 0.05
    np.testing.assert_array_equal(
        np.delete(made, slice(first, end)), np.delete(SOUND.samples, slice(first, end))
    )


def test_tokens_of_a_clip_encoded_apart_are_put_in(pal: Any) -> None:
    silent = Waveform(np.zeros_like(SOUND.samples), 16_000, "silence")
    got = last(pal, [edit("tokens", 0.0, 1.9, source="silence")])
    torch.testing.assert_close(got, by_hand(pal, sound=silent), atol=1e-5, rtol=1e-5)
    apart = last(pal, [edit("tokens", 0.5, 1.25, source="silence")])
    anew = last(pal, [edit("patch", 0.5, 1.25, source="silence")])
    assert not torch.allclose(apart, anew, atol=1e-4)


def test_a_clip_that_is_too_short_is_refused(pal: Any) -> None:
    long = Waveform(noise(4.0), 16_000, "a long clip")
    for kind in ("patch", "tokens"):
        with pytest.raises(AudioError, match=r"2\.50 s long, so it has no 2\.00 to 3\.00 s"):
            last(pal, [edit(kind, 2.0, 3.0, source="another")], long)


def test_every_stretch_has_the_effect_of_cutting_it(pal: Any) -> None:
    from _answers import Ask  # pyright: ignore[reportMissingImports]
    from _edited import (  # pyright: ignore[reportMissingImports]
        answers_of,
        effects_of_seconds,
        rival_of,
    )
    from _models import OpenModel  # pyright: ignore[reportMissingImports]
    from _sounds import ChosenSound  # pyright: ignore[reportMissingImports]

    opened = OpenModel("tiny", pal, pal.current_route, "of this test")
    ask = Ask(opened, ChosenSound("a clip", SOUND, "of this test"), "what?", pal.current_route)
    rival = rival_of(ask, ())
    answers = answers_of(ask, rival)
    table: Any = effects_of_seconds(ask, rival)
    assert table["start_s"].iloc[0] == 0 and table["end_s"].iloc[-1] == pytest.approx(1.9)
    np.testing.assert_allclose(table["start_s"].iloc[1:], table["end_s"].iloc[:-1])
    inputs = answers.behind(pal.inputs("what?", SOUND))

    def lead(*cuts: Knockout) -> float:
        with torch.no_grad(), intervene(pal, inputs, cuts):
            logits = pal(inputs)[0, -1].double()
        return float(logits[answers.clean] - logits[answers.corrupt])

    for row in table.iloc[[0, 7, -1]].itertuples():
        cut = Knockout(Address("pattern", Sound(row.start_s, row.end_s)))
        assert row.change == pytest.approx(lead(cut) - lead(), abs=1e-5)
    assert table["change"].abs().min() > 0


def test_code_prints_both_answers(pal: Any, monkeypatch: Any, capsys: Any) -> None:
    from _edits import interventions  # pyright: ignore[reportMissingImports]
    from _edits_code import code  # pyright: ignore[reportMissingImports]

    import palscope

    edits = [edit("cut", 0.4, 0.9, ("summary",), (1, 2), (0, 3)), edit("keep", 0.2, 1.5)]
    inputs = pal.inputs("what?", SOUND)
    made = [interventions([each], pal, inputs, SOUND, "what?", of_name) for each in edits]
    written = code(edits, made, "demo/pal", 'say "what"?')
    assert len(written.splitlines()) < 24
    monkeypatch.setattr(palscope, "load", lambda name: pal)
    monkeypatch.setattr(palscope, "load_audio", lambda path: SOUND)
    names: dict[str, Any] = {}
    exec(written, names)
    plain, cut = capsys.readouterr().out.splitlines()
    assert names["changes"] == [*made[0], *made[1]] and names["question"] == 'say "what"?'
    assert plain == (pal.ask('say "what"?', SOUND) or "") and plain != cut
    with pytest.raises(PalscopeError, match="edit_waveform"):
        code([edit("patch", 0, 1, source="noise")], [], "demo/pal", "what?")


def test_a_rival_is_no_other_spelling_of_the_answer(
    pal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _edited  # pyright: ignore[reportMissingImports]

    words = ("Sev", " seven", "Seven", "three")
    (seven,), first = pal.tokenizer(["Seven"])["input_ids"], np.zeros(pal.tokenizer.vocab_size)
    for height, word in zip((5, 4, 3, 2), words, strict=True):
        first[pal.tokenizer(word)["input_ids"][0]] = height
    answer = SimpleNamespace(text="Seven", tokens=[seven], first=first)
    monkeypatch.setattr(_edited, "generated_answer", lambda ask: answer)
    ask: Any = SimpleNamespace(opened=SimpleNamespace(model=pal))
    assert _edited.rival_of(ask, ()) == "three"
