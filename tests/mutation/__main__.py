"""Draw single-line mutations by a seed, and see which of them the tests notice.

`make mutants` draws (once: `drawn.json` holds the list), runs those without a result, and reports.
A mutant lives in a copy of the tree and meets the tests of its own file first, then those that name
what the file defines and the contracts of its folder; slow tests come last, for what still lives.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.mutation.operators import Mutation, mutations

ROOT = Path(__file__).parents[2]
CONTRACTS = {
    "routing": ("reference/test_forward", "models/test_forward", "models/test_paths"),
    "models": ("reference/test_forward", "models/test_paths", "models/test_generate"),
    "interventions": ("reference/test_interventions", "interventions/test_apply"),
    "measures": ("test_planted",),
    "audio": ("encoders/test_every_encoder",),
    "connectors": ("connectors/test_systems", "reference/test_forward"),
    "plots": ("plots/test_grammar",),
    "analyses": ("analyses/test_options", "analyses/test_contract"),
}
"""For each folder that is mutated, tests that hold its results against something else."""
AT_MOST = 4
"""Files of tests that a mutant meets."""
LIBRARIES = (
    *("torch", "pandas", "scipy.signal", "transformer_lens.model_bridge"),
    *("transformers.models.llama.modeling_llama", "transformers.models.whisper"),
)
"""What takes long to import: once, for all mutants."""
_NO_RUN = 99


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, stdout=-1, text=True).stdout


def draw(seed: int, number: int, commit: str) -> list[Mutation]:
    """Lines drawn evenly from all that can be mutated, and for each one of its mutations."""
    folders = [f"palscope/{private}{f}" for f in CONTRACTS for private in ("", "_")]
    paths = git("ls-tree", "-r", "--name-only", commit, *folders)
    by_line: dict[tuple[str, int], list[Mutation]] = {}
    for path in sorted(p for p in paths.splitlines() if p.endswith(".py")):
        for mutation in mutations(path, git("show", f"{commit}:{path}")):
            by_line.setdefault((path, mutation.line), []).append(mutation)
    rng = random.Random(seed)
    return [rng.choice(by_line[line]) for line in rng.sample(sorted(by_line), number)]


def copy_tree(folder: Path, commit: str | None) -> None:
    """The tree as it stands here, or at a commit."""
    words, names = ["git", "archive", str(commit)], ""
    if commit is None:
        words, names = ["tar", "-cT-"], git("ls-files", "-co", "--exclude-standard")
        names = "\n".join(name for name in names.splitlines() if (ROOT / name).exists())
    archive = subprocess.run(words, cwd=ROOT, check=True, input=names.encode(), stdout=-1)
    subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)


def mutate(source: str, mutation: dict[str, Any]) -> str | None:
    """The file with the mutation in; None where the line is no longer there."""
    lines = source.split("\n")
    same = [i for i, line in enumerate(lines) if line == mutation["before"]]
    if not same:
        return None
    at = min(same, key=lambda i: abs(i + 1 - mutation["line"]))
    return "\n".join([*lines[:at], mutation["after"], *lines[at + 1 :]])


def tests_of(tree: Path, path: str) -> list[str]:
    """Files of tests for a mutated file, the closest first."""
    _, folder, name = path.replace("/_", "/").split("/", 2)  # tests' names have no underscores
    module = path.removesuffix(".py").replace("/", ".")
    defined = (getattr(node, "name", "_") for node in ast.parse((tree / path).read_text()).body)
    words = [re.escape(module), *(name for name in defined if not name.startswith("_"))]
    naming = re.compile(rf"\b({'|'.join(words)})\b")
    own = sorted((tree / f"tests/{folder}").rglob("test_*.py"))
    others = sorted(set((tree / "tests").rglob("test_*.py")) - set(own))
    found = [tree / f"tests/{folder}/test_{Path(name).stem}.py"]
    contracts = [tree / f"tests/{each}.py" for each in CONTRACTS[folder]]
    found += [] if found[0].exists() else contracts  # all that hold what has no tests of its own
    found += [file for file in own if naming.search(file.read_text())]
    found += contracts
    found += [file for file in others if naming.search(file.read_text())]
    return [str(f.relative_to(tree)) for f in dict.fromkeys(found) if f.exists()][:AT_MOST]


def pytest(tree: Path, tests: list[str], marked: str, seconds: int) -> tuple[str, str]:
    """`survived`, `killed` or `timeout`, and the first test that failed.

    In a child of this process, which has the libraries already and so starts in no time.
    """
    output = tree / "output.txt"
    child = os.fork()
    if not child:
        try:
            os.chdir(tree)
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            # Of the processor, which others may use too.
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            for name in [n for n in sys.modules if n.split(".")[0] in ("tests", "palscope")]:
                del sys.modules[name]
            sys.path[:] = [str(tree), *(p for p in sys.path if p not in ("", str(ROOT)))]
            words = ["-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-m", marked]
            words += ["--assert=plain", *tests]  # what is imported here cannot be rewritten
            code = int(importlib.import_module("pytest").main(words))
            sys.stdout.flush()
            os._exit(code)
        except BaseException:
            traceback.print_exc()
        os._exit(_NO_RUN)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = output.read_text()
    if code in (0, 5):  # 5: there are none of this mark
        return "survived", ""
    assert code != _NO_RUN, said
    if code < 0:
        return "timeout", f"signal {-code}"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+?(?:\[.*?\])?)(?: - |$)", said, re.MULTILINE)
    return "killed", failed[1] if failed else said[-300:]


def judge(tree: Path, mutation: dict[str, Any], marked: str, seconds: int) -> dict[str, Any]:
    """What the tests of a mark say; one that also fails without the mutation says nothing."""
    began = time.monotonic()
    path = tree / mutation["path"]
    source = path.read_text()
    mutated = mutate(source, mutation)
    if mutated is None:
        return {"outcome": "gone"}
    unsound: list[str] = []
    while True:
        path.write_text(mutated)
        tests = [*tests_of(tree, mutation["path"]), *(f"--deselect={test}" for test in unsound)]
        outcome, by = pytest(tree, tests, marked, seconds)
        path.write_text(source)
        if outcome != "killed":
            break
        named = "::" in by  # else nothing could be collected
        check = pytest(tree, [by] if named else ["--collect-only", *tests], marked, seconds)
        if check[0] == "survived":
            break
        assert named, f"the tests cannot be collected without the mutation either: {check}"
        unsound.append(by)
    took = round(time.monotonic() - began)
    return {"outcome": outcome, "by": by, "unsound": unsound, "seconds": took}


def report(drawn: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    """The share killed at each mutant's first run and at its last, with Wilson's interval."""
    from scipy.stats import binomtest

    for name, order in (("first run", results[::-1]), ("last run", results)):
        outcome = {r["mutant"]: r["outcome"] for r in order if r["outcome"] != "alive"}
        counted = [o for m, o in outcome.items() if "equivalent" not in drawn[m] and o != "gone"]
        killed = sum(o in ("killed", "timeout") for o in counted)
        if counted:
            low, high = binomtest(killed, len(counted)).proportion_ci(method="wilson")
            print(f"{name}: {killed} of {len(counted)} killed ({low:.1%} to {high:.1%})")
    last = {r["mutant"]: r["outcome"] for r in results}
    for number, mutation in enumerate(drawn):
        if last.get(number) not in (None, "killed"):
            said = mutation.get("equivalent") or last[number]
            print(f"{number:3} {mutation['path']}:{mutation['line']} ({said})")
            print(f"    - {mutation['before'].strip()}\n    + {mutation['after'].strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--out", type=Path, default=ROOT / "build/mutants")
    parser.add_argument("--commit", help="draw from it and run its tests; else HEAD, and this tree")
    parser.add_argument(
        "--seconds", type=int, default=600, help="of the processor, a run of pytest"
    )
    parser.add_argument("--survivors", action="store_true", help="run those that survived again")
    parser.add_argument("--draw-only", action="store_true")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    file, log = chosen.out / "drawn.json", chosen.out / "results.jsonl"
    if not file.exists():
        commit = git("rev-parse", chosen.commit or "HEAD").strip()
        made = [asdict(m) for m in draw(chosen.seed, chosen.number, commit)]
        written = {"seed": chosen.seed, "commit": commit, "mutations": made}
        file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    drawn = json.loads(file.read_text())["mutations"]
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    os.environ |= {
        **dict.fromkeys(("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "CI"), "1"),  # CI: fixed examples
        **{"TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "Agg"},
        "PYTHONDONTWRITEBYTECODE": "1",  # a stale cache would run another mutant
    }
    sys.dont_write_bytecode = True

    def of(*outcomes: str | None) -> list[int]:
        last = {r["mutant"]: r["outcome"] for r in results}
        return [m for m in range(len(drawn)) if last.get(m) in outcomes]

    def run(tree: Path, numbers: list[int], marked: str) -> None:
        for number in numbers:
            result = judge(tree, drawn[number], marked, chosen.seconds)
            if result["outcome"] == "survived" and marked == "not slow":
                result["outcome"] = "alive"
            results.append({"mutant": number, **result})
            with log.open("a") as lines:
                lines.write(json.dumps(results[-1]) + "\n")
            print(number, drawn[number]["path"], result, flush=True)

    if not chosen.draw_only:
        for name in LIBRARIES:
            importlib.import_module(name)
        with tempfile.TemporaryDirectory() as folder:
            copy_tree(Path(folder), chosen.commit)
            run(Path(folder), of("survived") if chosen.survivors else of(None), "not slow")
            run(Path(folder), of("alive"), "slow")
    report(drawn, results)


if __name__ == "__main__":
    main()
