"""The names that others may use: listed here, explained each, and the only ones in what is read."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name_of

AT_MOST = 211
"""Who adds a name asks first whether a person needs it."""

PUBLIC: dict[str, str] = {
    "palscope": """AudioStream ConnectorConfig HookedAudioModel LFSTConfig Level
        PalscopeForConditionalGeneration PalscopeProcessor ProjectorConfig PublishedFamily
        QFormerConfig Route RouteCell Stream find_base load load_audio register_published""",
    "palscope.analyses": """Analysis AskedClip ClipOptions Command Options PairOptions Results
        SharedPasses Table Work analysis_of asked_together chosen_clips chosen_pairs
        each main option run""",
    "palscope.audio": """CLIPS_FOLDER TimeGrid Waveform bundled_clips bundled_scenes load_audio
        log_mel""",
    "palscope.circuits": """CircuitRuns atp_star attribution_graph circuit_of circuit_parts eap
        eap_ig eap_ig_activations exact_effects feature_shares firing_features grown
        pair_graph ranked write_graph""",
    "palscope.datasets": "Example read_manifest",
    "palscope.directions": """Direction Eraser Examples Steer clip_examples decodable
        direction_scores find_direction probe_scores""",
    "palscope.encoders": """Block ClipFeatures Component Encoder EncoderConfig EncoderOutput
        Several build_encoder encoder_config load_encoder register_encoder save_encoder""",
    "palscope.errors": """AudioError AudioWarning BenchmarkError CheckpointError DataError
        HookError PalscopeError PromptError RecipeError RouteError""",
    "palscope.evaluation": """compare_runs evaluate_benchmark evaluate_manifest open_answerer
        score_predictions""",
    "palscope.features": """ActivationStore Dictionary FEATURES_FOLDER LabelledClip UnitIndex
        UnitSource both_signs
        collect_activations dictionary_scores error_share index_units label_scores live_latents
        load_dictionary matched_cosine random_dictionary save_dictionary spliced unit_html
        what_fires""",
    "palscope.interventions": """Add Address Change Filler Knockout Mean Noise Patch Reroute
        Resample Scale Sound Text Zero capture edit_waveform intervene resolve run_cells""",
    "palscope.measures": """Answers activation_patching attention_knockout attention_mass
        attention_writes attribution_patching by_pathway by_seconds cache_bytes choice_logprobs
        clip_sets connector_attention disjoint_stretches forward_costs head_effects
        integrated_gradients knockout_effects layers_by_heads layers_by_places leakage logit_lens
        mean_band over_time patching_effects pathway_mass pathway_masking prompt_layout
        published_heads seconds_set set_mass shortest_window spoken_attention text_to_audio
        tokens_within""",
    "palscope.pairs": "Pair bundled_pairs control matched pair_from_files read_pairs swap_pairs",
    "palscope.plots": """Axis Bars Caption Figure Heat Line Look Panel Points Rule Span
        Spectrogram Spread Steps circuit head_effects_map head_thumbnails layer_head_map
        mass_by_layer mass_over_time shared_scale time_over_spectrogram
        units_over_time""",
    "palscope.training": """Bases Stage build measure_features prepare train train_dictionary
        training_arguments""",
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names.split()]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("module", PUBLIC)
def test_a_module_offers_what_the_list_has(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module].split())


def test_the_list_has_every_module_that_is_not_private() -> None:
    inside = {path.stem for path in (ROOT / "palscope").glob("[a-z]*.py")}
    inside |= {path.parent.name for path in (ROOT / "palscope").glob("[a-z]*/__init__.py")}
    assert {f"palscope.{name}" for name in inside} | {"palscope"} == set(PUBLIC)
    modules = (path.name for path in (ROOT / "palscope").glob("[a-z]*/*.py"))
    assert not [name for name in modules if not name.startswith("_")]


def test_the_list_stays_short() -> None:
    assert len({name for _, name in NAMES}) <= AT_MOST


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_is_there_and_explained(module: str, name: str) -> None:
    made = getattr(importlib.import_module(module), name)
    if not callable(made):
        return
    assert made.__doc__ and made.__doc__.strip()
    assert not made.__doc__.startswith(f"{name}("), "a dataclass without a text has its signature"


def code(page: Path) -> Iterator[str]:
    """The Python in a page or a notebook, piece by piece."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        yield from re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    else:
        cells = json.loads(text)["cells"]
        lines = (cell["source"] for cell in cells if cell["cell_type"] == "code")
        yield from ("".join(line for line in each if line[0] != "%") for each in lines)


def imported(source: str) -> Iterator[tuple[str, str]]:
    """What is imported from palscope: the module and the name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "palscope":
            yield from ((str(node.module), each.name) for each in node.names)
        elif isinstance(node, ast.Import):
            yield from ((each.name, "") for each in node.names if each.name.startswith("palscope."))
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "palscope":
            yield "palscope", node.attr


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_what_is_read_uses_public_names_alone(page: Path) -> None:
    used = {each for source in code(page) for each in imported(source)}
    modules = {(module, "") for module in PUBLIC}
    assert sorted(used - set(NAMES) - modules) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_speaks_of_public_names_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"`palscope(?:\.\w+)*\._\w+", text)


def test_private_names_are_seen() -> None:
    source = "from palscope._hooks import load\nimport palscope\npalscope.nothing"
    assert not set(imported(source)) & set(NAMES)
    assert len(set(imported(source))) == 2
