"""Circuits: how sound travels from a second to a word, edge by edge.

A node is a part of the model at a group of positions: what enters, a query head, a feed-forward
network, the answer. An edge is what one node writes into another's query, key, value or input. The
residual stream adds up what nodes write, so a node is a function of sums, and any of an edge's
scores asks how that function, and the answer, change with one summand.

Sources: Syed et al. 2023 (arXiv 2310.10348), Hanna et al. 2024 (arXiv 2403.17806); positions as in
Haklay et al. 2025 (arXiv 2502.04577).
"""
