"""The command line as a host: every analysis's flags, run, resumption, files and errors."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from palscope._beside import words_for
from palscope._hooks import HookedAudioModel
from palscope._sweeps import processes
from palscope._sweeps.record import run_record, weights_hashes
from palscope._sweeps.store import Run
from palscope.analyses._analysis import TOGETHER, Analysis, Item, Results, Table, Work
from palscope.analyses._measured import measured
from palscope.analyses._models import models_of
from palscope.analyses._options import Options, add_flags, deciding, options_of, values_of
from palscope.analyses._process import call, free_memory, open_model
from palscope.plots._figure import Figure

OptionsT = TypeVar("OptionsT", bound=Options)
ItemT = TypeVar("ItemT", bound=Item)
AnyOptionsT = TypeVar("AnyOptionsT")


def main(
    analysis: Analysis[OptionsT, ItemT], doc: str | None = None, words: Sequence[str] | None = None
) -> int:
    """Run an analysis as its command line says; the exit code of its process.

    Args:
        analysis: the object.
        doc: what `--help` says first: the script's docstring.
        words: those behind the command; by default the process's own.
    """
    parser = parser_of(analysis, doc)
    given = vars(parser.parse_args(words))
    out, resume = given.pop("out"), given.pop("resume")
    return call(lambda: run(analysis, given, out, resume=resume), out)


def parser_of(analysis: Analysis[Any, Any], doc: str | None = None) -> ArgumentParser:
    """The analysis's flags, and `--out` and `--resume`."""
    parser = ArgumentParser(
        prog=" ".join(words_for(analysis.name)),
        description=doc or analysis.about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several = analysis.compare is not None
    add_flags(parser, analysis.options, models=several)
    if several:
        parser.add_argument(
            "--config",
            default=argparse.SUPPRESS,
            type=Path,
            help="YAML: models by name, each with options of its own; in place of --model",
        )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--resume", action="store_true", help="go on with the run that --out holds")
    return parser


def run(
    analysis: Analysis[OptionsT, ItemT],
    given: Mapping[str, Any],
    out: Path,
    *,
    resume: bool = False,
) -> list[Results[OptionsT, ItemT]]:
    """Measure, store and draw; with several models each in a folder of its own in `out`.

    Args:
        analysis: the object.
        given: options by name; those left out have their defaults. Where the analysis compares
            models, `model` may be several, or `config` a file that names them.
        out: the folder.
        resume: go on with the run that it holds.

    Raises:
        PalscopeError: options, model, clips or folder cannot be used so.
    """
    models = models_of(given)
    every: list[Results[OptionsT, ItemT]] = []
    for name, told in models.items():
        options = options_of(analysis.options, told)
        folder = out if len(models) == 1 else out / name
        every.append(_of_model(analysis, name, options, folder, resume))
        free_memory()
    if len(models) > 1 and analysis.compare is not None and processes.rank() == 0:
        save_figures(analysis.compare(every), out)
    return every


def save(analysis: Analysis[OptionsT, ItemT], results: Results[OptionsT, ItemT], out: Path) -> None:
    """Write summaries and figures, and print the notes."""
    for line in analysis.notes(results):
        print(line)
    for name, table in results.derived(analysis.summaries).items():
        table.to_csv(out / f"{name}.csv", index=False)
    save_figures(analysis.figures(results), out)
    left = f", {len(results.left_out)} left out" if results.left_out else ""
    print(f"{len(results.items)} {analysis.item}(s) measured{left}; results in {out}")


def save_figures(figures: Mapping[str, Figure], out: Path) -> None:
    """Every figure by its name in the folder."""
    for name, figure in figures.items():
        figure.save(out / name)


@dataclass(frozen=True)
class Command(Generic[AnyOptionsT]):
    """A script that measures no items, but has options, errors and a place on the command line."""

    name: str
    options: type[AnyOptionsT]
    run: Callable[[AnyOptionsT], None]

    def main(self, doc: str | None = None, words: Sequence[str] | None = None) -> int:
        """Run it; the exit code of its process."""
        parser = ArgumentParser(
            prog=" ".join(words_for(self.name)),
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_flags(parser, self.options)
        given = vars(parser.parse_args(words))
        return call(lambda: self.run(options_of(self.options, given)), given.get("out"))


def _of_model(
    analysis: Analysis[OptionsT, ItemT], name: str, options: OptionsT, out: Path, resume: bool
) -> Results[OptionsT, ItemT]:
    items = [analysis.prepare(options, item) for item in analysis.items(options)]
    model = open_model(options)
    question = getattr(options, "question", None)
    if question is not None:
        model.processor.chat(question)  # an unusable one is no clip's fault
    sounds = [getattr(item, "sound", None) for item in items]
    record = run_record(
        model,
        config=deciding(options),
        weights=weights_hashes(model),
        seed=options.seed,
        data=[each for value in (*values_of(options).values(), *sounds) for each in _files(value)],
    )
    store = Run.open(out, record, resume=resume)
    results = measured(analysis, name, options, model, model.current_route, items, store)
    if analysis.once is not None:
        results = _with_once(analysis.once, results, model, store)
    if store.main:
        save(analysis, results, out)
    store.finish()
    return results


def _with_once(
    table: Table[OptionsT, ItemT],
    results: Results[OptionsT, ItemT],
    model: HookedAudioModel,
    store: Run,
) -> Results[OptionsT, ItemT]:
    """The results, and the table that all of their items have together."""
    work = Work(model, model.current_route, results.options, results.of_item, results.rows)
    done = store.over(
        [results.items],
        lambda every: next(iter(table.measure(work, every))),
        table=table.name,
        key=lambda _: TOGETHER,
        item="run",
        keys=table.keys,
    )
    return replace(results, stored={**results.stored, table.name: done.rows})


def _files(value: Any) -> list[Path]:
    """The files of an option's or an item's value; for a folder the clips in it stand."""
    several = cast("tuple[Any, ...]", value if isinstance(value, tuple) else (value,))
    return [each for each in several if isinstance(each, Path) and each.is_file()]
