"""Edits of features: their text, and what they do, against interventions and hooks by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import palscope
from palscope import PalscopeForConditionalGeneration
from palscope._routing import Route, route_to_text
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.features import load_dictionary, save_dictionary, spliced
from palscope.interventions import (
    Address,
    Knockout,
    Patch,
    Resample,
    Scale,
    Sound,
    Zero,
    intervene,
)
from tests import tiny
from tests.dashboards.dictionary import dictionary_of_noise
from tests.dashboards.heard import HOOK
from tests.features.spliced import random_at
from tests.hooks.conftest import noise

SOUND = Waveform(noise(1.9, 3), 16_000, "a clip")
AT = (0.4, 0.9)
CLOSE: dict[str, Any] = {"atol": 2e-5, "rtol": 0}


@pytest.fixture(scope="module")
def dictionary(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(dictionary_of_noise(checkpoint, tmp_path_factory.mktemp("noise"))[0])


@pytest.fixture(scope="module")
def ask(checkpoint: Path) -> Any:
    """The tiny checkpoint, asked about the clip."""
    with pytest.MonkeyPatch.context() as patch:
        from tests.dashboards.conftest import DASHBOARDS

        patch.syspath_prepend(str(DASHBOARDS))
        from _answers import Ask  # pyright: ignore[reportMissingImports]
        from _models import OpenModel  # pyright: ignore[reportMissingImports]
        from _sounds import ChosenSound  # pyright: ignore[reportMissingImports]

        model = palscope.load(checkpoint)
        opened = OpenModel(str(checkpoint), model, model.current_route, "of these tests")
        sound = ChosenSound("a clip", SOUND, "of these tests")
        yield Ask(opened, sound, "what?", model.current_route)


def edit(kind: str, features: tuple[int, ...], folder: str, **more: Any) -> Any:
    from _feature_edits import FeatureEdit  # pyright: ignore[reportMissingImports]

    given = {"seconds": AT, "error": False} | more
    seconds, error = given.pop("seconds"), given.pop("error")
    return FeatureEdit(kind, seconds, features, error, folder, **given)


def last(ask: Any, *edits: Any) -> torch.Tensor:
    """The logits behind the prompt, under edits, as the page makes them."""
    from _under_edits import (  # pyright: ignore[reportMissingImports]
        inputs_under,
        made_of,
        route_under,
    )

    model, inputs = ask.opened.model, inputs_under(ask, edits)
    with torch.no_grad(), route_under(ask, edits):
        made = made_of(ask, edits, inputs)
        with intervene(model, inputs, made):
            return model(inputs)[0, -1]


def by_hand(ask: Any, folder: str, *made: Any) -> torch.Tensor:
    model, inputs = ask.opened.model, ask.opened.model.inputs("what?", SOUND)
    within = spliced(model, load_dictionary(folder))
    with torch.no_grad(), within, intervene(model, inputs, made):
        return model(inputs)[0, -1]


def test_they_are_the_same_from_their_text() -> None:
    from _edits import Edit, from_text, to_text  # pyright: ignore[reportMissingImports]

    edits = [
        edit("zero", (3, 17), "bundled"),
        edit("zero", (), "runs/a~b|c%7E d", seconds=None, error=True),
        Edit("cut", 0.68, 1.21),
        edit("like", (5,), "bundled", error=True, source="dog, then rain"),
        edit("times", (0,), "/a/folder", factor=-2.5),
    ]
    assert from_text(to_text(edits)) == edits
    assert to_text(edits[:1]) == "zero~0.4-0.9~3.17~bundled~~"
    for damaged in (
        "zero~0.9-0.4~3~bundled~~",
        "zero~0.4-0.9~~bundled~~",
        "zero~0.4-0.9~3~~~",
        "zero~0.4-0.9~3~bundled~dog~",
        "like~0.4-0.9~3~bundled~~",
        "times~0.4-0.9~3~bundled~~",
        "times~0.4-0.9~3~bundled~~1e9",
        "zero~0.4-0.9~3.-1~bundled~~",
        f"zero~0.4-0.9~{'9' * 400}~bundled~~",
    ):
        with pytest.raises(PalscopeError, match="cannot be read"):
            from_text(damaged)


def test_they_say_what_they_are() -> None:
    said = {
        "feature 3 of bundled in 0.40–0.90 s: set to 0": edit("zero", (3,), "bundled"),
        "features 3, 17 and error of runs/a everywhere: times 2": edit(
            "times", (3, 17), "runs/a", seconds=None, error=True, factor=2.0
        ),
        "error of bundled in 0.40–0.90 s: as in silence, encoded apart": edit(
            "like", (), "bundled", error=True, source="silence"
        ),
    }
    assert {str(each): text for text, each in said.items()} == {text: text for text in said}


def test_they_are_interventions_in_a_splice(ask: Any, dictionary: str) -> None:
    model = ask.opened.model
    plain = last(ask)
    silent = model.inputs("what?", Waveform(np.zeros_like(SOUND.samples), 16_000, "silence"))
    here, fire = Sound(*AT), tuple(firing(ask, dictionary)[:2])
    place, error = Address("feature", here, features=fire), Address("feature_error", here)
    everywhere = Address("feature", features=fire)
    cut = Knockout(Address("pattern", Sound(1.0, 1.5)))
    for edits, wanted in (
        ([edit("zero", fire, dictionary)], [Patch(place, Zero())]),
        ([edit("times", fire, dictionary, factor=3.0)], [Patch(place, Scale(3.0))]),
        ([edit("like", fire, dictionary, source="silence")], [Patch(place, Resample(silent))]),
        ([edit("zero", (), dictionary, error=True)], [Patch(error, Zero())]),
        (
            [edit("zero", fire, dictionary, seconds=None, error=True)],
            [Patch(everywhere, Zero()), Patch(Address("feature_error"), Zero())],
        ),
        (
            [cut_of(1.0, 1.5), edit("zero", fire, dictionary)],
            [cut, Patch(place, Zero())],
        ),
    ):
        found = last(ask, *edits)
        torch.testing.assert_close(found, by_hand(ask, dictionary, *wanted), **CLOSE)
        assert (found - plain).abs().max() > 1e-3
    both = last(ask, edit("zero", fire[:1], dictionary), edit("zero", fire[1:], dictionary))
    torch.testing.assert_close(both, last(ask, edit("zero", fire, dictionary)), **CLOSE)


def firing(ask: Any, folder: str) -> list[int]:
    """Features by how strong they are in `AT`, of an encoder of 20 ms a token."""
    _, cache = ask.opened.model.run_with_cache(ask.opened.model.inputs("what?", SOUND))
    acts = load_dictionary(folder).encode(cache[HOOK][0, 20:45])
    strongest = acts.sum(0).argsort(descending=True)
    return [number for number in strongest.tolist() if acts[:, number].any()]


def cut_of(start: float, end: float) -> Any:
    from _edits import Edit  # pyright: ignore[reportMissingImports]

    return Edit("cut", start, end)


@torch.no_grad()
def test_a_feature_set_to_0_is_the_plain_model_s_with_a_torch_hook(
    ask: Any, dictionary: str, checkpoint: Path
) -> None:
    """Encoded, one latent zeroed, decoded, and what the dictionary leaves of the values added."""
    plain = PalscopeForConditionalGeneration.from_pretrained(checkpoint).eval()
    loaded, number = load_dictionary(dictionary), firing(ask, dictionary)[0]
    inputs = ask.opened.model.inputs("what?", SOUND)

    def without(module: Any, given: Any, out: Any) -> Any:
        states = (out[0] if isinstance(out, tuple) else out).clone()
        x = states[:, 20:45]  # 20 ms a token: 0.4 to 0.9 s
        latents = loaded.encode(x)
        error = x - loaded.decode(latents)
        latents[..., number] = 0
        states[:, 20:45] = loaded.decode(latents) + error
        return (states, *out[1:]) if isinstance(out, tuple) else states

    bare = plain(**inputs).logits[0, -1]
    handle = plain.encoder.model.layers[0].register_forward_hook(without)
    wanted = plain(**inputs).logits[0, -1]
    handle.remove()
    torch.testing.assert_close(last(ask, edit("zero", (number,), dictionary)), wanted, **CLOSE)
    assert (wanted - bare).abs().max() > 1e-3


def test_what_does_not_fit_is_said_in_a_sentence(ask: Any, dictionary: str, tmp_path: Path) -> None:
    with pytest.raises(PalscopeError, match="feature 24 does not exist; the last is 23"):
        last(ask, edit("zero", (24,), dictionary))
    with pytest.raises(PalscopeError, match="is no dictionary"):
        last(ask, edit("zero", (1,), "no/where"))
    told = f"of {ask.opened.name} on the route {route_to_text(ask.route)}"
    with pytest.raises(PalscopeError, match="does not fit") as error:
        last(replace(ask, route=Route.pal(tiny.LAYERS, [0, 2])), edit("zero", (1,), dictionary))
    assert str(error.value).endswith(f"{told}.")
    with pytest.raises(PalscopeError, match=r"bundled does not fit .* it is of demo/pal on the ro"):
        last(ask, edit("zero", (1,), "bundled"))
    for name, hook_point, said in (
        ("site", "audio_blocks.9.hook_out", "audio_blocks.9.hook_out"),
        ("nowhere", None, "does not say where in the model it belongs"),
    ):
        made = random_at("anywhere", 16)
        made.about = {} if hook_point is None else {"hook_point": hook_point}
        save_dictionary(made, tmp_path / name)
        with pytest.raises(PalscopeError, match=said):
            last(ask, edit("zero", (1,), str(tmp_path / name)))
    wide = random_at(HOOK, 20)
    save_dictionary(wide, tmp_path / "wide")
    with pytest.raises(PalscopeError, match="this dictionary takes 20"):
        last(ask, edit("zero", (1,), str(tmp_path / "wide")))


def test_code_prints_both_answers(ask: Any, dictionary: str, monkeypatch: Any, capsys: Any) -> None:
    from _edited import code_of, edited  # pyright: ignore[reportMissingImports]

    edits = (
        edit("zero", tuple(range(12)), dictionary, seconds=None, error=True),
        edit("like", (12, 13), dictionary, source="silence"),
        edit("like", (14, 15), dictionary, source="chainsaw"),
        edit("like", (16, 17), dictionary, source="dog, then rain"),
        edit("times", tuple(range(18, 24)), dictionary, factor=30.0),
        cut_of(1.0, 1.5),
    )
    written = code_of(ask, edits)
    monkeypatch.setattr(palscope, "load", lambda name: ask.opened.model)
    monkeypatch.setattr(
        palscope,
        "load_audio",
        lambda path, load=palscope.load_audio: SOUND if path == "CLIP.wav" else load(path),
    )
    names: dict[str, Any] = {}
    exec(written, names)
    plain, new = capsys.readouterr().out.splitlines()
    assert plain == (ask.opened.model.ask("what?", SOUND) or "")
    assert new == edited(ask, edits).text != plain
    made = [each for each in names["changes"] if isinstance(each, Patch)]
    found = by_hand(ask, dictionary, *made, names["changes"][-1])
    torch.testing.assert_close(found, last(ask, *edits), **CLOSE)


def test_code_of_the_bundled_dictionary_names_no_folder_of_this_machine() -> None:
    from _edits_code import code  # pyright: ignore[reportMissingImports]

    made = [Patch(Address("feature", Sound(*AT), features=(3,), at="a.hook"), Zero())]
    written = code([edit("zero", (3,), "bundled")], [made], "demo/pal", "what?")
    assert 'load_dictionary(FEATURES_FOLDER / "dictionary")' in written
    assert 'Address("feature", Sound(0.4, 0.9), features=(3,), at="a.hook"), Zero()' in written
    noisy = edit("like", (3,), "bundled", source="noise")
    with pytest.raises(PalscopeError, match="Resample"):
        code([noisy], [made], "demo/pal", "what?")


def test_controls_of_a_cut_hold_beside_features(ask: Any, dictionary: str) -> None:
    from _edited import answers_of, controls, rival_of  # pyright: ignore[reportMissingImports]

    edits = (edit("zero", (firing(ask, dictionary)[0],), dictionary), cut_of(0.5, 0.9))
    rival = rival_of(ask, ())
    table = controls(ask, edits, 1, rival)
    answers = answers_of(ask, rival)
    assert not answers.prefix
    lead = [
        float((logits[answers.clean] - logits[answers.corrupt]).double())
        for logits in (last(ask, edits[0]), last(ask, *edits))
    ]
    assert table["change"].iloc[0] == pytest.approx(lead[1] - lead[0], abs=2e-5)
    assert len(table) > 1
