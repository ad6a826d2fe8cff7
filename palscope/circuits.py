"""Circuits: the graph of a run, what its edges do to the answer, and runs of a part of it.

Sources: Hanna et al. 2024 (arXiv 2403.17806; EAP-IG), Syed et al. 2023 (arXiv 2310.10348; EAP),
Kramár et al. 2024 (arXiv 2403.00745; AtP*), Mueller et al. 2025 (arXiv 2504.13151; faithfulness).
"""

from __future__ import annotations

from palscope._circuits.activations import eap_ig_activations
from palscope._circuits.attribution.export import write_graph
from palscope._circuits.attribution.graph import attribution_graph
from palscope._circuits.build import pair_graph
from palscope._circuits.exact import exact_effects
from palscope._circuits.feature_shares import feature_shares
from palscope._circuits.firing import firing_features
from palscope._circuits.gradients import eap, eap_ig
from palscope._circuits.nodes import atp_star
from palscope._circuits.parts import circuit_parts
from palscope._circuits.runs import CircuitRuns
from palscope._circuits.selection import circuit_of, grown, ranked

__all__ = [
    "CircuitRuns",
    "atp_star",
    "attribution_graph",
    "circuit_of",
    "circuit_parts",
    "eap",
    "eap_ig",
    "eap_ig_activations",
    "exact_effects",
    "feature_shares",
    "firing_features",
    "grown",
    "pair_graph",
    "ranked",
    "write_graph",
]
