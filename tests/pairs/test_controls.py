from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from palscope.audio import Waveform
from palscope.datasets._manifest import Corpus
from palscope.errors import AudioError, PalscopeError
from palscope.pairs import Pair, bundled_pairs, control, matched, swap_pairs
from palscope.pairs._controls import BLOCK_S, CROSS_FADE_S
from palscope.pairs._pair import Segment, rms
from palscope.pairs._swaps import bundled_corpus
from tests.pairs.conftest import heard

RATE = 16_000
HOWS = ("silence", "noise", "shuffled", "other clip", "self")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return bundled_pairs()


@pytest.mark.parametrize("how", HOWS)
def test_a_control_keeps_all_but_the_corrupt_side(pairs: list[Pair], how: str) -> None:
    for pair in pairs:
        made = control(pair, how, seed=0)
        assert made.clean is pair.clean and made.question == pair.question
        assert made.kind == how and made.clean_answer == pair.clean_answer
        assert made.corrupt_answer == (pair.clean_answer if how == "self" else None)
        assert [(s.name, s.start, s.end) for s in made.segments] == [
            (s.name, s.start, s.end) for s in pair.segments
        ]
        table = matched([made])
        assert (table["differs"] != table["identical"]).all()
        if how != "silence":
            assert abs(table["difference_db"][0]) < 1e-3
    names = {control(pair, how, seed=0).name for pair in pairs}
    assert len(names) == len(pairs) and not names & {pair.name for pair in pairs}


@pytest.mark.parametrize("how", ["noise", "shuffled", "other clip"])
def test_a_seed_gives_the_same_control_and_another_one_another(pairs: list[Pair], how: str) -> None:
    first, again, other = (control(pairs[0], how, seed=seed).corrupt.samples for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_draws_differ_between_pairs_of_one_length(pairs: list[Pair]) -> None:
    a, b = (control(pair, "noise", seed=0).corrupt.samples for pair in pairs[:2])
    assert len(a) == len(b) and abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_silence_is_silent(pairs: list[Pair]) -> None:
    assert not control(pairs[0], "silence", seed=0).corrupt.samples.any()


def test_noise_has_the_spectrum_and_the_segments_levels_but_not_the_sound(
    pairs: list[Pair],
) -> None:
    for pair in pairs:
        noise = control(pair, "noise", seed=0)
        assert matched([noise])["difference_db"].abs().max() < 1e-3
        clean, made = noise.clean.samples, noise.corrupt.samples
        assert abs(np.corrcoef(clean, made)[0, 1]) < 0.25
        bands = [
            10 * np.log10(signal.welch(samples, RATE, nperseg=256)[1].reshape(-1, 3).mean(1))
            for samples in (clean, made)
        ]
        loud = bands[0] > bands[0].max() - 25
        # Single bands of half a second of noise scatter by a few dB.
        assert np.median(np.abs(bands[1] - bands[0])[loud]) < 2.5


def ramp_pair() -> Pair:
    """Each 50 ms block of the clean clip is a tone of its own pitch."""
    time = np.arange(2 * RATE) / RATE
    hertz = 200 * (1 + np.floor(time / BLOCK_S))
    tone = np.sin(2 * np.pi * hertz * time)
    whole = (Segment("clip", 0.0, 2.0, True),)
    clean, corrupt = (Waveform((a * tone).astype(np.float32), RATE, "x") for a in (0.1, 0.2))
    return Pair("ramp", "tone", "Which?", clean, corrupt, "a", "b", whole)


def pitches(samples: np.ndarray) -> list[int]:
    inner = samples.reshape(-1, round(BLOCK_S * RATE))[:, round(CROSS_FADE_S * RATE) :]
    power = np.abs(np.fft.rfft(inner * np.hanning(inner.shape[1]), n=RATE, axis=1))
    return [round(each / 200) for each in power.argmax(1)]


def test_shuffling_moves_every_block_and_loses_none() -> None:
    pair = ramp_pair()
    before = pitches(pair.clean.samples)
    assert before == list(range(1, 41))[: len(before)]
    after = pitches(control(pair, "shuffled", seed=0).corrupt.samples)
    assert sorted(after) == before
    assert all(a != b for a, b in zip(after, before, strict=True))


def test_shuffled_blocks_join_without_steps() -> None:
    time = np.arange(RATE) / RATE
    clean = Waveform((0.1 * np.sin(2 * np.pi * 37 * time)).astype(np.float32), RATE, "hum")
    corrupt = Waveform(-clean.samples, RATE, "other")
    whole = (Segment("clip", 0.0, 1.0, True),)
    hum = Pair("hum", "tone", "Which?", clean, corrupt, "a", "b", whole)
    steps = np.abs(np.diff(control(hum, "shuffled", seed=0).corrupt.samples))
    # Blocks cut hard would step by up to 0.2; the sine itself moves 0.0015 a sample.
    assert steps.max() < 0.03


def test_the_other_clip_has_another_label(corpus: Corpus) -> None:
    few = Corpus(
        tuple(c for c in corpus.clips if c.label in ("dog", "rain", "rooster")), corpus.waveforms
    )
    for pair in swap_pairs(few, "sound", n=6, seed=0):
        other = control(pair, "other clip", seed=0, corpus=few)
        label, _ = heard(other.corrupt.samples, "sound")
        assert {label, pair.clean_answer, pair.corrupt_answer} == {"dog", "rain", "rooster"}
    two = Corpus(tuple(c for c in few.clips if c.label != "rooster"), corpus.waveforms)
    with pytest.raises(PalscopeError, match="no clip of another label"):
        control(swap_pairs(two, "sound", n=1, seed=0)[0], "other clip", seed=0, corpus=two)


def test_the_other_clip_fills_half_of_the_time_where_one_can(pairs: list[Pair]) -> None:
    corpus = bundled_corpus()
    long = max(pairs, key=lambda pair: pair.seconds)
    for seed in range(10):
        samples = control(long, "other clip", seed=seed, corpus=corpus).corrupt.samples
        assert np.mean(samples != 0) > 0.4  # the half that sounds, with a pause here and there
    digits = Corpus(tuple(c for c in corpus.clips if c.domain == "speech"), corpus.waveforms)
    padded = control(long, "other clip", seed=0, corpus=digits).corrupt.samples
    sounding = np.flatnonzero(padded)
    assert 0.3 * RATE < len(sounding) < 0.6 * RATE
    assert sounding[0] == pytest.approx(len(padded) - sounding[-1], abs=100)


def test_domains_are_drawn_evenly(corpus: Corpus) -> None:
    pair = swap_pairs(corpus, "digit", n=1, seed=0)[0]
    many = Corpus(
        (*corpus.clips, *(c for c in corpus.clips * 5 if c.domain == "speech")), corpus.waveforms
    )
    sources = [control(pair, "other clip", seed=s, corpus=many).corrupt.source for s in range(60)]
    domain_of = {clip.name: clip.domain for clip in corpus.clips}
    drawn = [domain_of[source] for source in sources]
    assert min(drawn.count(domain) for domain in ("sound", "speech", "music")) >= 10


def test_what_cannot_be_controlled(pairs: list[Pair]) -> None:
    with pytest.raises(PalscopeError, match="no control 'hum'"):
        control(pairs[0], "hum", seed=0)
    clean = Waveform(np.zeros(RATE, dtype=np.float32), RATE, "zeros")
    whole = (Segment("clip", 0.0, 1.0, True),)
    corrupt = Waveform(np.ones(RATE, dtype=np.float32), RATE, "ones")
    silent = Pair("zeros", "x", "What?", clean, corrupt, "nothing", None, whole)
    for how in ("silence", "noise", "shuffled", "other clip"):
        with pytest.raises(AudioError, match="clean clip is silent"):
            control(silent, how, seed=0)
    short = replace(
        silent,
        clean=Waveform(corrupt.samples[:1000], RATE, "short"),
        corrupt=Waveform(clean.samples[:1000], RATE, "short"),
        segments=(Segment("clip", 0.0, 1000 / RATE, True),),
    )
    assert rms(short.clean.samples) > 0
    with pytest.raises(AudioError, match="two blocks"):
        control(short, "shuffled", seed=0)
