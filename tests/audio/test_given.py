"""Sound as people hold it: whatever it is given as, the same samples, or a sentence."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from palscope.audio import Waveform, load_audio
from palscope.audio._given import is_one_clip
from palscope.errors import AudioError
from tests.shapes import unchecked

RATE = 16_000
SAMPLES = np.random.default_rng(0).uniform(-0.5, 0.5, 400).astype(np.float32)


def wav() -> bytes:
    file = io.BytesIO()
    sf.write(file, SAMPLES, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


class Decoder:
    """As torchcodec's, which `datasets` gives: channels come first."""

    def get_all_samples(self) -> Any:
        data = torch.from_numpy(SAMPLES)[None].repeat(2, 1)
        return SimpleNamespace(data=data, sample_rate=RATE)


with unchecked():  # a waveform should be of an array
    LISTED = Waveform(SAMPLES.tolist(), RATE, "a clip")
BARE = {
    "array": SAMPLES,
    "float64": SAMPLES.astype(np.float64),
    "tensor": torch.from_numpy(SAMPLES).requires_grad_(),
    "list": SAMPLES.tolist(),
    "tuple": tuple(SAMPLES.tolist()),
    "a view that goes backwards": SAMPLES[::-1].copy()[::-1],
    "channels": np.stack([SAMPLES, SAMPLES], 1),
}
RATED = {
    "pair": (SAMPLES, RATE),
    "pair of a tensor": (torch.from_numpy(SAMPLES), RATE),
    "gradio's pair": (RATE, SAMPLES),
    "cell": {"path": None, "array": SAMPLES, "sampling_rate": RATE},
    "cell of a list": {"array": SAMPLES.tolist(), "sampling_rate": RATE},
    "cell of bytes": {"bytes": wav(), "path": "gone.wav"},
    "decoder": Decoder(),
    "bytes": wav(),
    "bytearray": bytearray(wav()),
    "file": io.BytesIO(wav()),
    "waveform": Waveform(SAMPLES, RATE, "a clip"),
    "waveform of a list": LISTED,
}


@pytest.mark.parametrize("form", [*BARE, *RATED])
def test_the_same_samples_whatever_holds_them(form: str) -> None:
    held: Any = BARE.get(form, RATED.get(form))
    assert is_one_clip(held)
    read = load_audio(held, native_rate=RATE if form in BARE else None)
    np.testing.assert_allclose(read.samples, SAMPLES, atol=1e-7)
    assert read.samples.flags.c_contiguous
    if form in BARE:
        with pytest.raises(AudioError, match="give native_rate"):
            load_audio(held)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_precision(dtype: torch.dtype) -> None:
    held = torch.from_numpy(SAMPLES).to(dtype)
    read = load_audio(held, native_rate=RATE).samples
    np.testing.assert_array_equal(read, held.float().numpy())


@settings(max_examples=20)
@given(arrays.arrays(np.int16, st.integers(1, 50)))
def test_integers_are_scaled_by_their_type_in_every_form(samples: np.ndarray) -> None:
    wanted = (samples / 32768).astype(np.float32)
    for held in (samples, torch.from_numpy(samples)):
        np.testing.assert_array_equal(load_audio(held, native_rate=RATE).samples, wanted)
    cell: Any = {"array": samples, "sampling_rate": RATE}
    np.testing.assert_array_equal(load_audio(cell).samples, wanted)


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ("https://example.org/a.wav", "is an address, and nothing is fetched"),
        ("file:///a.wav", "download the file"),
        ("s3://bucket/a.wav", "is an address"),
        (Path("https://example.org/a.wav"), "is an address"),
        ([0, 1, 2], "of integers, so that their type says"),
        ([[0, 1], [2]], "in one flat list"),
        ([[0.5, 0.1], [0.2, 0.1]], "a list is no sound"),
        ({"array": [[0.5, 0.1], [0.2]], "sampling_rate": RATE}, "differ in length"),
        ([], "A list is no sound|a list is no sound"),
        ([None], "a list is no sound"),
        ({}, "with nothing is no sound"),
        ({"array": SAMPLES}, "expected 'array' and 'sampling_rate'"),
        ({"path": "https://example.org/a.wav"}, "is an address"),
        ({"path": None, "bytes": None}, "is no sound"),
        (({"a": 1}, 2), "a tuple is no sound"),
        (torch.zeros(2, 100), "Transpose"),
        (torch.zeros(2, 3, 4), "shape"),
        (torch.zeros(5, dtype=torch.bool), "type bool"),
        (3.5, "A float is no sound"),
        (None, "A NoneType is no sound"),
        ("", "is a folder"),
    ],
)
def test_what_is_no_sound_is_told(held: Any, told: str) -> None:
    rate = RATE if torch.is_tensor(held) else None
    with pytest.raises(AudioError, match=told):
        load_audio(held, native_rate=rate)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), "16000", True, 1e12, None])
def test_a_rate_that_is_none_is_told(rate: Any) -> None:
    with pytest.raises(AudioError, match="rate"):
        load_audio({"array": SAMPLES, "sampling_rate": rate})
    with pytest.raises(AudioError, match="rate"):
        load_audio(SAMPLES, native_rate=rate)
    with pytest.raises(AudioError, match="44100 Hz was said too"):
        load_audio((SAMPLES, RATE), native_rate=44_100)


@pytest.mark.parametrize("longest", [0, -1, float("nan")])
def test_a_bound_that_is_none_is_told(longest: float, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    with pytest.raises(AudioError, match="max_seconds is"):
        load_audio(tmp_path / "a.wav", max_seconds=longest)
