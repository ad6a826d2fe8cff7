"""Evaluation: ranking answers, scoring manifests, intervals."""
