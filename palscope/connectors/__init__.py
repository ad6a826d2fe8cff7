"""From encoder tokens to audio streams."""

from palscope.connectors.connector import Connector, ConnectorConfig, ProjectorConfig
from palscope.connectors.lfst import LFST, LFSTConfig
from palscope.connectors.mlp import MLP
from palscope.connectors.pool import FramePool
from palscope.connectors.qformer import QFormer, QFormerConfig
from palscope.connectors.resampler import Reads, Resampler
from palscope.connectors.summary import StridedSummary

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
