"""The one chooser of clips and pairs, and what it refuses; the words of its options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palscope.analyses import ClipOptions, PairOptions, chosen_clips, chosen_pairs
from palscope.analyses._items import places_of, sides
from palscope.analyses._options import OptionError
from palscope.datasets._questions import LABELS
from palscope.pairs import bundled_pairs, read_pairs


def clips(**given: Any) -> Any:
    return chosen_clips(ClipOptions(model="m", **given))


def pairs(**given: Any) -> Any:
    return chosen_pairs(PairOptions(model="m", **given))


def test_clips_of_a_manifest_take_turns_and_are_asked_in_the_words_of_their_domain(
    manifest: Path,
) -> None:
    found = clips(audio=(manifest,))
    names = ["sound0.wav", "speech0.wav", "sound1.wav", "speech1.wav", "sound2.wav"]
    assert [clip.name for clip in found] == names
    assert [clip.answer for clip in found] == ["dog", "six", "rain", "two", "dog"]
    assert set(LABELS["sound"]) <= set(found[0].choices) and found[0].side == ""
    assert len(clips(audio=(manifest,), n=1)) == 2
    (one,) = clips(audio=(manifest,), only=("sound1.wav",), question="what?")
    assert (one.name, one.question) == ("sound1.wav", "what?")
    assert one.digest != found[2].digest  # the question is another


def test_files_and_folders_have_no_answers(manifest: Path) -> None:
    found = clips(audio=(manifest.parent,))
    assert len(found) == 5 and {clip.answer for clip in found} == {None}
    assert {clip.question for clip in found} == {"Which sound is this?"}


def test_without_anything_there_are_the_package_s() -> None:
    assert len({clip.group for clip in clips()}) == 3
    assert [pair.name for pair in pairs()] == [pair.name for pair in bundled_pairs()]
    assert {pair.kind for pair in pairs(kind=("digit",), n=2)} == {"digit"}


def test_a_pair_is_two_clips_with_each_other_s_answers() -> None:
    pair = next(pair for pair in bundled_pairs() if pair.kind == "first_digit")
    clean, corrupt = sides(pair, corrupt=True)
    assert (clean.answer, clean.other) == (pair.clean_answer, pair.corrupt_answer)
    assert (corrupt.answer, corrupt.other) == (pair.corrupt_answer, pair.clean_answer)
    assert clean.choices == corrupt.choices == LABELS["speech"]
    assert [*clean.places()] == ["first digit", "silence", "second digit"]
    assert sides(pair)[0].name == pair.name and len(places_of(pair, 0.3)) > 3
    single = next(pair for pair in bundled_pairs() if pair.kind == "digit")
    assert [*places_of(single)] == ["digit"] and len(sides(single)[0].places()) == 4  # quarters


def test_pairs_of_files_and_of_a_manifest(own_pairs: Path, manifest: Path) -> None:
    assert [p.name for p in pairs(pairs=own_pairs)] == [p.name for p in read_pairs(own_pairs)]
    assert len(pairs(audio=(manifest,), kind=("digit",), n=1, split="validation")) == 1


@pytest.mark.parametrize(
    ("choose", "given", "said"),
    [
        (pairs, {"kind": ("sound_order",)}, "give a manifest as --audio"),
        (pairs, {"kind": ("tune",)}, "kinds of pairs are"),
        (pairs, {"pairs": "own", "kind": ("digit",)}, "--kind does not go with --pairs"),
        (pairs, {"pairs": "own", "audio": "manifest"}, "--audio does not go with --pairs"),
        (pairs, {"split": "test"}, "--split does not go with the package's pairs"),
        (pairs, {"only": ("nobody",)}, "--only nobody: there are"),
        (clips, {"audio": "manifest", "split": "test"}, "--split test: no clip"),
        (clips, {"kind": ("digit",), "question": "what?"}, "--question is for clips"),
    ],
)
def test_what_does_not_go_together_is_refused(
    choose: Callable[..., Any], given: dict[str, Any], said: str, manifest: Path, own_pairs: Path
) -> None:
    if given.get("audio") == "manifest":
        given = given | {"audio": (manifest,)}
    if given.get("pairs") == "own":
        given = given | {"pairs": own_pairs}
    with pytest.raises(OptionError, match=said):
        choose(**given)


def test_wrong_input_ends_in_one_line(
    refused: Callable[..., str], manifest: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    clip = manifest.parent / "sound0.wav"
    for number, (given, named) in enumerate(
        {
            ("--audio", tmp_path / "nowhere.csv"): "nowhere.csv",
            ("--audio", tmp_path / "nowhere.wav"): "nowhere.wav",
            ("--audio", tmp_path / "empty"): "no sound file",
            ("--audio", clip, "--question", "  "): "question is empty",
            ("--audio", clip, "--model", tmp_path / "nobody"): "nobody",
            ("--audio", clip, "--only", "other"): "--only other",
        }.items()
    ):
        assert named in refused("attention_mass", *given, out=tmp_path / str(number))
    for analysis in ("logit_lens", "attention_knockout"):
        given = ("--audio", clip)
        assert "give a manifest with labels" in refused(analysis, *given, out=tmp_path / analysis)
