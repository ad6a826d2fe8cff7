"""From encoder tokens to audio streams."""

from palscope.connectors.connector import Connector, ConnectorConfig, ProjectorConfig
from palscope.connectors.mlp import MLP, FramePool
from palscope.connectors.summary import StridedSummary

__all__ = ["MLP", "Connector", "ConnectorConfig", "FramePool", "ProjectorConfig", "StridedSummary"]
