"""The result store: what is stored stays, once and whole, and is of this run alone."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palscope._sweeps.store import Run, SharedMeasure, StoredTable, read_record
from palscope.errors import AudioError, PalscopeError

ROOT = Path(__file__).parents[2]

RECORD: dict[str, Any] = {
    "command": "python test.py",
    "config": {"question": "what?", "layers": (1, 2)},
    "route": {"n_layers": 2},
    "weights": {"checkpoint": {"sha256": "a"}},
    "seed": 0,
    "dtype": "float32",
    "device": "cuda:0",
    "versions": {"python": "3"},
}


class Counting:
    """A measure of two rows that counts its calls, and cannot use items with "bad" in them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, item: str) -> pd.DataFrame:
        self.calls.append(item)
        if "bad" in item:
            raise AudioError(f"{item} is bad.")
        kind = pd.Categorical([item[0]] * 2, categories=["a", "b", "c"])
        return pd.DataFrame({"layer": [0, 1], "kind": kind, "effect": [0.5, float(len(item))]})


def begin(folder: Path, resume: bool = False, **changes: Any) -> Run:
    return Run.open(folder, RECORD | changes, resume=resume)


def over(run: Run, items: list[str], measure: Any = None, **changes: Any) -> StoredTable:
    given = {"table": "effects", "key": str, "keys": ["layer"]} | changes
    return run.over(items, measure or Counting(), **given)


def test_items_that_are_measured_at_once_keep_their_order_and_survive_a_stop(
    tmp_path: Path,
) -> None:
    """Alike ones together, so many; a bad one leaves itself out alone; a stop loses its group."""
    asked: list[list[str]] = []
    one_by_one = Counting()

    def together(items: Sequence[str]) -> list[pd.DataFrame]:
        asked.append(list(items))
        if "b1" in items and len(asked) == 2:
            raise KeyboardInterrupt
        if "abad" in items:
            raise AudioError("one of them is bad.")
        return [Counting()(item) for item in items]

    shared = SharedMeasure(together, 2, alike=lambda item: item[0])
    items = ["b1", "a1", "b22", "abad", "a333", "b4"]
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        over(begin(folder), items, one_by_one, shared=shared)
    assert asked == [["a1", "abad"], ["a333", "b1"]] and one_by_one.calls == ["a1", "abad"]
    stored = over(begin(folder, resume=True), items, one_by_one, shared=shared)
    # What could not be measured is tried again, in its place.
    assert asked[2:] == [["abad", "a333"], ["b1", "b22"]]
    assert one_by_one.calls[2:] == ["abad", "a333", "b4"]
    assert [item for item, _ in stored] == ["b1", "a1", "b22", "a333", "b4"]
    assert list(stored.left_out) == ["abad"]
    plain = over(begin(tmp_path / "plain"), items)
    pd.testing.assert_frame_equal(stored.read(), plain.read())


def test_a_measure_of_several_gives_rows_for_each(tmp_path: Path) -> None:
    shared = SharedMeasure(lambda items: [Counting()(items[0])], 2, alike=str)
    with pytest.raises(ValueError, match="2 items were measured, and 1"):
        over(begin(tmp_path / "run"), ["a", "b"], shared=shared)


def test_a_table_has_the_items_rows_in_their_order(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    measure = Counting()
    stored = over(run, ["c", "a", "bb", "a"], measure)
    assert measure.calls == ["c", "a", "bb"]
    table = run.read("effects")
    assert table["pair"].tolist() == ["c", "c", "a", "a", "bb", "bb"]
    assert table["effect"].tolist() == [0.5, 1, 0.5, 1, 0.5, 2]
    assert table["kind"].astype(str).tolist() == ["c", "c", "a", "a", "b", "b"]
    pd.testing.assert_frame_equal(stored.read(), table)
    items = list(stored)
    assert [item for item, _ in items] == ["c", "a", "bb"]
    assert items[2][1]["effect"].tolist() == [0.5, 2]
    assert not list(tmp_path.rglob("*.part"))


def test_the_record_says_what_was_done(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert read_record(tmp_path) == json.loads(json.dumps(RECORD)) | {"finished": False}
    over(run, ["a", "bad"])
    run.finish(accuracy=0.5)
    record = read_record(tmp_path)
    assert record["finished"] and record["seconds"] >= 0 and record["accuracy"] == 0.5
    assert record["tables"]["effects"] == {
        "item": "pair",
        "keys": ["layer"],
        "items": 1,
        "left_out": [{"pair": "bad", "error": "bad is bad."}],
    }


def test_a_folder_that_holds_a_run_is_kept(tmp_path: Path) -> None:
    run = begin(tmp_path)
    over(run, ["a"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(PalscopeError, match=r"\(unfinished\).*--resume.*another folder"):
        begin(tmp_path)
    run.finish()
    with pytest.raises(PalscopeError, match=r"\(finished\)"):
        begin(tmp_path)
    with pytest.raises(PalscopeError, match=r"config\.question: 'what\?', now 'who\?'"):
        begin(tmp_path, True, config=RECORD["config"] | {"question": "who?"})
    for name, other in (("seed", 1), ("dtype", "bfloat16"), ("device", "cpu")):
        with pytest.raises(PalscopeError, match=f"{name}: "):
            begin(tmp_path, True, **{name: other})
    with pytest.raises(PalscopeError, match=r"route\.n_layers"):
        begin(tmp_path, True, route={"n_layers": 3})
    with pytest.raises(PalscopeError, match=r"weights\.checkpoint\.sha256: 'a', now 'b'"):
        begin(tmp_path, True, weights={"checkpoint": {"sha256": "b"}})
    del before[tmp_path / "run.json"]
    assert {path: path.read_bytes() for path in before} == before


def test_two_processes_do_not_write_to_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holding = f"""
import sys
from palscope._sweeps.store import Run
run = Run.open(__import__("pathlib").Path({str(folder)!r}), {RECORD!r}, resume=True)
print("open", flush=True)
sys.stdin.readline()
run.finish()
print("finished", flush=True)
sys.stdin.readline()
"""

    def other() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", holding]
        child = subprocess.Popen(
            command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout and child.stdout.readline() == "open\n"
        return child

    with other() as child:
        for resume in (True, False):
            with pytest.raises(PalscopeError, match=f"another process is writing to {folder}"):
                begin(folder, resume)
        over(begin(tmp_path / "another"), ["a"])
        child.kill()
    over(begin(folder, True), ["a"])  # a lock dies with who holds it
    run = begin(folder, True)  # and this process may open it again
    run.finish()
    with other() as child:
        with pytest.raises(PalscopeError, match="another process"):
            begin(folder, True)
        assert child.stdin and child.stdout
        print("go on", file=child.stdin, flush=True)
        assert child.stdout.readline() == "finished\n"
        with pytest.raises(PalscopeError, match=r"holds a run already \(finished\)"):
            begin(folder)
        begin(folder, True)  # what is finished is let go of, though its process lives on
        print("end", file=child.stdin, flush=True)


def test_resumed_only_what_is_missing_is_measured(tmp_path: Path) -> None:
    over(begin(tmp_path), ["a", "bad", "b"])
    measure = Counting()
    run = begin(tmp_path, True, device="cuda:1", command="python again.py")
    over(run, ["c", "a", "bad", "b"], measure)
    assert measure.calls == ["c", "bad"]
    assert run.read("effects")["pair"].tolist() == ["c", "c", "a", "a", "b", "b"]
    record = read_record(tmp_path)
    assert record["command"] == "python test.py"
    assert record["resumed"] == [{"command": "python again.py", "versions": {"python": "3"}}]


def test_what_was_left_out_may_come_back(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert over(run, ["a", "bad"]).left_out == {"bad": "bad is bad."}
    stored = over(run, ["a", "bad"], lambda item: Counting()("b"))
    assert stored.left_out == {} and list(stored.shards) == ["a", "bad"]
    assert read_record(tmp_path)["tables"]["effects"]["left_out"] == []


def test_another_content_is_measured_again(tmp_path: Path) -> None:
    run, contents = begin(tmp_path), {"a": "1", "b": "1"}
    measure = Counting()
    over(run, ["a", "b"], measure, content=contents.__getitem__)
    contents["b"] = "2"
    over(run, ["a", "b"], measure, content=contents.__getitem__)
    assert measure.calls == ["a", "b", "b"]


def test_shards_of_another_run_do_not_count(tmp_path: Path) -> None:
    over(begin(tmp_path), ["a"])
    (tmp_path / "run.json").unlink()
    measure = Counting()
    over(begin(tmp_path, seed=1), ["a"], measure)
    assert measure.calls == ["a"]


@pytest.mark.parametrize("spoil", ["cut", "emptied", "flipped"])
def test_a_spoilt_shard_is_measured_again(tmp_path: Path, spoil: str) -> None:
    run = begin(tmp_path)
    stored = over(run, ["a", "b"])
    whole = stored.path.read_bytes()
    shard = stored.shards["b"]
    raw = bytearray(shard.read_bytes())
    if spoil == "flipped":
        at = bytes(raw).index(np.float64(0.5).tobytes())
        raw[at + 1] ^= 0xFF
    shard.write_bytes({"cut": raw[: len(raw) // 2], "emptied": b"", "flipped": raw}[spoil])
    measure = Counting()
    over(run, ["a", "b"], measure)
    assert measure.calls == ["b"]
    assert stored.path.read_bytes() == whole


def test_columns_that_an_item_leaves_empty_take_the_others_type(tmp_path: Path) -> None:
    def measure(item: str) -> pd.DataFrame:
        return pd.DataFrame({"answer": [None if item == "a" else "dog"], "n": [1]})

    over(begin(tmp_path), ["a", "b"], measure, keys=[])
    answers = pd.read_parquet(tmp_path / "effects.parquet")["answer"]
    assert answers.isna().tolist() == [True, False] and answers[1] == "dog"


def test_columns_that_an_item_lacks_are_empty_there(tmp_path: Path) -> None:
    def measure(item: str) -> pd.DataFrame:
        every = {"layer": [0, 1], "effect": [1.0, 2.0]}
        own = {
            "a": {"first": [3, 4]},
            "b": {"effect": [5.0, 6.0], "answer": pd.Categorical(["dog", "cat"])},
            "c": {},
        }
        return pd.DataFrame(every | own[item])

    stored = over(begin(tmp_path), ["a", "b", "c"], measure)
    table = stored.read()
    assert list(table) == ["pair", "layer", "effect", "first", "answer"]
    assert table["pair"].tolist() == ["a", "a", "b", "b", "c", "c"]
    assert table["effect"].tolist() == [1, 2, 5, 6, 1, 2]
    assert table["first"].fillna(-1).tolist() == [3, 4, -1, -1, -1, -1]
    assert table["answer"].astype(object).fillna("").tolist() == ["", "", "dog", "cat", "", ""]
    assert [list(rows) for _, rows in stored][2] == ["pair", "layer", "effect"]


def test_columns_of_one_name_are_of_one_type(tmp_path: Path) -> None:
    def measure(item: str) -> pd.DataFrame:
        return pd.DataFrame({"layer": [0], "effect": [1.0 if item == "a" else "much"]})

    with pytest.raises(ValueError, match=r"items of effects differ in a column's type.*effect"):
        over(begin(tmp_path), ["a", "b"], measure)


def test_rows_that_are_named_alike_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="named alike"):
        over(begin(tmp_path), ["a"], keys=[])


def test_the_items_column_holds_the_key(tmp_path: Path) -> None:
    def measure(item: str) -> pd.DataFrame:
        return pd.DataFrame({"pair": ["another"], "layer": [0]})

    with pytest.raises(ValueError, match="must hold the item's key"):
        over(begin(tmp_path), ["a"], measure)


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    run = begin(tmp_path)
    with pytest.raises(PalscopeError, match=r"none of 2 could be measured.*bad1 is bad"):
        over(run, ["bad1", "bad2"])
    with pytest.raises(PalscopeError, match="nothing to measure"):
        over(run, [])


def test_random_numbers_do_not_depend_on_the_items_before(tmp_path: Path) -> None:
    def measure(item: str) -> pd.DataFrame:
        drawn = [random.random(), np.random.random(), float(torch.rand(1))]
        return pd.DataFrame({"layer": range(3), "effect": drawn})

    over(begin(tmp_path / "one"), ["a", "b"], measure)
    over(begin(tmp_path / "two"), ["b"], measure)
    over(begin(tmp_path / "three", seed=1), ["b"], measure)
    one, two, three = (
        pd.read_parquet(tmp_path / name / "effects.parquet").query("pair == 'b'")["effect"].tolist()
        for name in ("one", "two", "three")
    )
    assert one == two and not set(one) & set(three) and len(set(one)) == 3


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PalscopeError, match=r"holds no run\.json"):
        read_record(tmp_path)
    for text, message in (("{", "not valid JSON"), ("[]", "expected a run.s record")):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(PalscopeError, match=message):
            begin(tmp_path, True)


def test_two_items_of_one_name_are_refused(tmp_path: Path) -> None:
    named: dict[str, Any] = {"key": lambda item: item[0], "content": str}
    with pytest.raises(PalscopeError, match="two different items for effects are called 'a'"):
        over(begin(tmp_path), ["a1", "a2"], **named)
    over(begin(tmp_path, True), ["a1", "b", "a1"], **named)


# -- disks and folders -----------------------------------------------------------------------------


def measured(item: str) -> pd.DataFrame:
    return pd.DataFrame({"layer": [0, 1], "value": [float(len(item)), 0.5]})


def run_over(folder: Path, names: list[str], *, resume: bool = True) -> pd.DataFrame:
    run = Run.open(folder, {"config": {}}, resume=resume)
    stored = run.over(names, measured, table="t", key=str, item="clip", keys=["layer"])
    run.finish()
    return stored.read()


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=st.integers(0, 2), target=st.integers(0, 2), other_run=st.booleans())
def test_a_shard_that_was_copied_over_another_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, source: int, target: int, other_run: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    names = ["a", "bb", "ccc"]
    whole = run_over(folder, names)
    shards = {
        str(pd.read_parquet(f)["clip"][0]): f for f in (folder / "shards/t").glob("*.parquet")
    }
    taken = shards[names[source]]
    if other_run:  # the same item, of a run with other settings
        run = Run.open(folder / "other", {"config": {"seed": 1}}, resume=False)
        shifted = run.over(
            [names[target]],
            lambda name: measured(name) + 7,
            table="t",
            key=str,
            item="clip",
            keys=["layer"],
        )
        taken = next(iter(shifted.shards.values()))
        run.finish()
    if taken != shards[names[target]]:
        shutil.copyfile(taken, shards[names[target]])
    pd.testing.assert_frame_equal(run_over(folder, names), whole)


@pytest.mark.parametrize("at", range(8))
def test_a_disk_that_is_full_at_any_write_leaves_a_run_that_goes_on(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "bb", "ccc"]
    wanted = run_over(tmp_path / "wanted", names)
    real, writes = os.replace, iter(range(100))

    def full(*args: Any, **kwargs: Any) -> None:
        if next(writes) == at:
            raise OSError(errno.ENOSPC, "No space left on device", str(args[1]))
        real(*args, **kwargs)

    monkeypatch.setattr(os, "replace", full)
    try:
        run_over(tmp_path / "run", names, resume=False)
        assert at > 5  # a record, three shards, the table, two records more
    except PalscopeError as error:
        assert "cannot be written: no space is left" in str(error)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.part"))
    pd.testing.assert_frame_equal(run_over(tmp_path / "run", names), wanted)


def test_a_file_where_the_runs_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    for folder in (tmp_path / "out", tmp_path / "out" / "run"):
        with pytest.raises(PalscopeError, match="a file stands where a folder should"):
            Run.open(folder, {"config": {}}, resume=False)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_record_or_a_table_that_is_damaged_is_told(tmp_path: Path, damage: bytes) -> None:
    run_over(tmp_path, ["a"])
    run = Run.open(tmp_path, {"config": {}}, resume=True)
    (tmp_path / "t.parquet").write_bytes(damage)
    with pytest.raises(PalscopeError, match=r"t\.parquet cannot be read as a table"):
        run.read("t")
    run.finish()
    (tmp_path / "run.json").write_bytes(damage)
    with pytest.raises(PalscopeError, match=r"run\.json"):
        Run.open(tmp_path, {"config": {}}, resume=True)
