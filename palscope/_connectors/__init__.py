"""From encoder tokens to audio streams."""

from palscope._connectors.connector import Connector, ConnectorConfig, ProjectorConfig
from palscope._connectors.lfst import LFST, LFSTConfig
from palscope._connectors.mlp import MLP
from palscope._connectors.pool import FramePool
from palscope._connectors.qformer import QFormer, QFormerConfig
from palscope._connectors.resampler import Reads, Resampler
from palscope._connectors.summary import StridedSummary

__all__ = [
    "LFST",
    "MLP",
    "Connector",
    "ConnectorConfig",
    "FramePool",
    "LFSTConfig",
    "ProjectorConfig",
    "QFormer",
    "QFormerConfig",
    "Reads",
    "Resampler",
    "StridedSummary",
]
