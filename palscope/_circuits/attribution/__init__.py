"""Attribution graphs: one run's answer as a sum over what entered, node by node.

Attention patterns, norms' scales and the gates of feed-forward networks are held at what they were
in the run. What is left of the model is linear, so that what enters a node is a sum over sources,
exactly; values are told against zero, and no second clip is needed.

Source: Ameisen et al. 2025, "Circuit Tracing" (transformer-circuits.pub), whose nodes are features
of transcoders; here they are the model's own heads and neurons.
"""
