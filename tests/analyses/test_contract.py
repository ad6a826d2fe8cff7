"""What holds of every analysis, whatever it measures: one list, for those that come later too."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from palscope._routing import Route, route_to_text
from palscope.analyses import Analysis, Results, main, run
from palscope.analyses._command import parser_of
from palscope.analyses._models import models_of
from palscope.analyses._options import OptionError, command_words, options_of, settings_of
from palscope.analyses._registry import analyses
from palscope.pairs import bundled_pairs
from tests import tiny
from tests.plots.reading import agree

ANALYSES = analyses()

SMALL: dict[str, dict[str, Any]] = {
    "activation_patching": {"kind": ["first_digit"], "n": 2, "grid": "layers", "all_pairs": True},
    "alignment_heads": {"n": 4, "cut": 1},
    "attention_knockout": {"kind": ["digit"], "n": 2, "width": 2, "stride": 2},
    "attention_mass": {"n": 1, "batch": 1},
    "audio_queries": {"kind": ["digit"], "n": 1, "seconds": 0.5, "repeats": 1, "batch": 1},
    "attribution": {"kind": ["digit"], "n": 2, "points": 2, "windows": 2, "orders": 1},
    "circuits": {
        "kind": ["digit"],
        "n": 2,
        "methods": ["EAP"],
        "steps": 1,
        "exact": 5,
        "needs": 3,
        "dictionary": [Path(__file__).parent / "dictionary"],
        "features": 4,
    },
    "compare_models": {"kind": ["digit"], "n": 2, "step": 1.0},
    "ear2word": {"kind": ["digit"], "n": 2},
    "injection_depth": {"kind": ["digit"], "n": 1, "seconds": 0.5, "repeats": 1, "batch": 1},
    "leakage": {"kind": ["digit"], "n": 2, "windows": 2},
    "logit_lens": {"kind": ["digit"], "n": 2},
    "nonspeech": {"n": 2, "noises": 0, "strings": 2, "doses": [0.0, 2.0]},
    "pathway_masking": {"kind": ["digit"], "n": 2, "batch": 1},
    "steering": {
        "direction": Path(__file__).parent / "direction",
        "at": "resid_post:1",
        "kind": ["digit"],
        "n": 2,
        "doses": [0.0, 2.0],
        "batch": 1,
    },
}
"""Options with which each is done in a second or two, over several items, one after the other.

Those that share passes are held to that by `test_shared_passes`.
"""

DRAWN = {
    "activation_patching": "controls effects layers_first_digit layers_first_digit_lines moved",
    "alignment_heads": "alignment cut_heads heads measures onset_errors onsets word_times",
    "attention_knockout": "depth_flipped depth_logprob_change",
    "attention_mass": "depth layer_head_frames layer_head_summary mass_by_depth mass_by_layer time "
    "time_00_chainsaw_4-157611-A time_01_zero_0_george_8 time_02_cello_fluid-r3",
    "audio_queries": "accuracy answers",
    "attribution": "agreement agreement_by_layer chance completeness deletion_insertion "
    "map_digit_000_one_seven map_digit_001_four_two scatter",
    "circuits": "agreement areas completeness faithfulness faithfulness_digit features_digit "
    "shares strongest",
    "compare_models": "profiles",
    "ear2word": "faithfulness faithfulness_by_edges results",
    "injection_depth": "accuracy answers",
    "leakage": "leakage_over_time leaked_by_depth widths",
    "logit_lens": "readable_by_depth readable_from",
    "nonspeech": "cuts dose doses heads rate rates",
    "pathway_masking": "accuracy contrasts scores",
    "steering": "dose_curve doses",
}
"""Figures and small tables of each, by the names of their files."""

OTHER_ROUTE = route_to_text(Route.pal(tiny.LAYERS, [0]))


def test_every_analysis_is_held_to_this() -> None:
    assert set(SMALL) == set(ANALYSES)


@pytest.fixture(scope="module")
def finished(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of each analysis, made when it is first asked for."""
    done: dict[str, tuple[Path, Results[Any, Any]]] = {}

    def of(name: str) -> tuple[Path, Results[Any, Any]]:
        if name not in done:
            out = tmp_path_factory.mktemp(name)
            (results,) = run(ANALYSES[name], small(name, checkpoint), out / "run")
            done[name] = out / "run", results
        return done[name]

    return of


def small(name: str, checkpoint: Path) -> dict[str, Any]:
    return {"model": str(checkpoint), **SMALL[name]}


def undrawn(analysis: Analysis[Any, Any]) -> Analysis[Any, Any]:
    """The same without figures, which take longer than what they show."""
    return replace(analysis, figures=lambda results: {})


def tables(folder: Path) -> dict[str, bytes]:
    """Every table of a run, as it is stored, but for what was timed."""
    files = sorted(folder.glob("*.parquet"))
    return {path.name: path.read_bytes() for path in files if path.stem != "costs"}


@pytest.mark.parametrize("name", SMALL)
def test_a_run_that_is_stopped_goes_on(
    name: str, finished: Any, checkpoint: Path, tmp_path: Path
) -> None:
    """Stopped in its second item, and gone on with: the same bytes, and nothing done twice."""
    whole, results = finished(name)
    assert len(results.items) > 1
    analysis, calls = ANALYSES[name], []

    def stopped(work: Any, items: Sequence[Any]) -> Any:
        calls.extend(item.name for item in items)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return analysis.tables[0].measure(work, items)

    first, *others = analysis.tables
    watched = replace(undrawn(analysis), tables=[replace(first, measure=stopped), *others])
    given = small(name, checkpoint)
    with pytest.raises(KeyboardInterrupt):
        run(watched, given, tmp_path / "run")
    run(watched, given, tmp_path / "run", resume=True)
    names = [item.name for item in results.items]
    assert calls == [names[0], names[1], *names[1:]]
    assert tables(tmp_path / "run") == tables(whole)


@pytest.mark.parametrize("name", SMALL)
def test_another_config_or_route_is_refused(
    name: str, finished: Any, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = finished(name)
    before = tables(folder)
    for other in (["--seed", "1"], ["--route", OTHER_ROUTE]):
        given = [*command_words(results.options), "--out", str(folder), "--resume", *other]
        assert main(ANALYSES[name], words=given) == 2
        assert "holds a run with other settings" in capsys.readouterr().err
    assert main(ANALYSES[name], words=[*command_words(results.options), "--out", str(folder)]) == 2
    assert "go on with it by --resume" in capsys.readouterr().err
    assert tables(folder) == before


@pytest.mark.parametrize("name", SMALL)
def test_screen_and_print_show_the_same(name: str, finished: Any) -> None:
    folder, results = finished(name)
    saved = ANALYSES[name].figures(results)
    for stem, figure in saved.items():
        for ending in ("html", "png", "svg", "csv"):
            assert (folder / f"{stem}.{ending}").stat().st_size > 100
        stored: Any = pd.read_csv(folder / f"{stem}.csv")
        assert len(stored) == len(figure.data) > 0
    # Of clips that are answered right alone: the tiny model has none, but one is always drawn.
    figures = saved or ANALYSES[name].figures(replace(results, items=results.items[:1]))
    small = {path.stem for path in folder.glob("*.csv")}
    assert figures and small | set(figures) == set(DRAWN[name].split())
    for figure in figures.values():
        agree(figure)
        assert figure.caption.model == results.model and figure.caption.n <= len(results.items)
        assert figure.caption.of == ("pairs" if hasattr(results.items[0], "kind") else "clips")


@pytest.mark.parametrize("name", SMALL)
def test_the_command_line_says_what_the_options_hold(
    name: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words and options are each made from the other, and `--help` names every option once."""
    analysis = ANALYSES[name]
    options = options_of(analysis.options, small(name, checkpoint))
    given = vars(parser_of(analysis).parse_args([*command_words(options), "--out", "x"]))
    (own,) = models_of(given).values()
    assert options_of(analysis.options, own) == options
    with pytest.raises(SystemExit):
        main(analysis, words=["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for setting in settings_of(analysis.options).values():
        assert f"{setting.flag} " in said and len(setting.help) > 2
        if setting.choices:
            assert f"{{{','.join(map(str, setting.choices))}}}" in said
        if setting.unit:
            assert f"({setting.unit})" in said


@pytest.mark.parametrize("name", SMALL)
def test_an_option_that_would_do_nothing_is_refused(name: str, checkpoint: Path) -> None:
    analysis = ANALYSES[name]
    known = settings_of(analysis.options)
    for setting in known.values():
        for other, wanted in setting.only_with.items():
            others: Any = known[other].choices or (None, (0.1, 0.2))
            idle = next(value for value in others if value not in wanted)
            value = setting.choices[0] if setting.choices else setting.default or 1
            value = (value,) if setting.several else value
            given = {"model": str(checkpoint), setting.name: value}
            given |= {} if idle is None else {other: idle}
            with pytest.raises(OptionError, match=f"{setting.flag} only goes with"):
                options_of(analysis.options, given)


@pytest.fixture
def on_page(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """What the page asks of an analysis for the first of the pairs that the command measures."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "dashboards"))
    import _analyses  # pyright: ignore[reportMissingImports]
    import _models  # pyright: ignore[reportMissingImports]
    import _pairs  # pyright: ignore[reportMissingImports]

    def asked(name: str) -> Any:
        analysis, given = ANALYSES[name], SMALL[name]
        pair = next(pair for pair in bundled_pairs() if pair.kind == given["kind"][0])
        page = [each for each in settings_of(analysis.options).values() if each.page]
        values = {each.name: given[each.name] for each in page if each.name in given}
        values = {**analysis.on_page, **values}
        opened, chosen = _models.cached_model(str(checkpoint)), _pairs.ChosenPair(pair, pair.digest)
        return _analyses.AnalysisRequest(
            name, analysis, opened, opened.route, chosen, tuple(values.items()), pass_s=1.0
        )

    return asked


@pytest.mark.parametrize("name", [n for n in SMALL if ANALYSES[n].takes is not None])
def test_page_and_script_give_the_same_tables(
    name: str, finished: Any, on_page: Callable[[str], Any]
) -> None:
    """The page's command has its options and its items; and a command measured what it shows."""
    asked, analysis = on_page(name), ANALYSES[name]
    python, script, *given = shlex.split(asked.command)
    assert (python, script) == ("python", f"analyses/{name}.py")
    (own,) = models_of(vars(parser_of(analysis).parse_args(given))).values()
    options = options_of(analysis.options, own)
    assert options == asked.options
    items = [analysis.prepare(options, item) for item in analysis.items(options)]
    names = [item.name for item in asked.items]
    assert [(item.name, item.digest) for item in items] == [
        (item.name, item.digest) for item in asked.items
    ]
    shown, (_, measured) = asked.results(), finished(name)
    assert shown.stored and not shown.left_out and [item.name for item in shown.items] == names
    for table in shown.stored:
        for item in names:
            ours, theirs = (of.of_item(table, item) for of in (shown, measured))
            alike = {"check_dtype": False, "check_categorical": False, "rtol": 0, "atol": 0}
            pd.testing.assert_frame_equal(ours, theirs, **alike)
