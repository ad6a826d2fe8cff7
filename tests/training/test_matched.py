"""Connectors of equal size."""

from __future__ import annotations

import pytest

from palscope._connectors import Connector, ProjectorConfig, QFormerConfig
from palscope._routing import Route
from palscope._routing.depths import Placement, trained_depths, trained_queries
from palscope.audio import TimeGrid
from palscope.encoders._base import EncoderTokens
from palscope.training._demo import ENCODER_WIDTH, LAYERS, WIDTH
from palscope.training._matched import connector_parameters, matched_connector
from palscope.training._placements import PARAMETERS, connector_for


def tokens(width: int) -> EncoderTokens:
    return EncoderTokens(width, TimeGrid(0.02))


EVERY = {each.name: each for each in [*trained_depths(LAYERS), *trained_queries(LAYERS)]}


@pytest.mark.parametrize("placement", EVERY.values(), ids=EVERY)
def test_all_depths_train_the_same_number_of_parameters(placement: Placement) -> None:
    config = connector_for(placement.route, PARAMETERS)
    count = connector_parameters(config, placement.route, [tokens(ENCODER_WIDTH)], WIDTH)
    assert count == pytest.approx(PARAMETERS, rel=0.003)


def test_lal_in_all_layers_is_the_demos() -> None:
    assert connector_for(Route.lal(LAYERS), PARAMETERS).layers["frames"].hidden == 192


def test_parameters_are_counted_as_made() -> None:
    route = Route.pal(4, [0, 2])
    shape = ProjectorConfig(hidden=7, depth=3)
    config = matched_connector(
        route, 5000, encoders=[tokens(12)], width=10, inputs=shape, layers=shape, summary_width=6
    )
    made = Connector(config, [tokens(12)], 10, route.streams)
    counted = connector_parameters(config, route, [tokens(12)], 10)
    assert counted == sum(parameter.numel() for parameter in made.parameters())
    assert config.inputs["summary"].hidden == 7
    assert not any(parameter.is_meta for parameter in made.parameters())


def test_a_resamplers_parameters_count() -> None:
    route, shape = Route.lal(3), ProjectorConfig(depth=2)
    resampler = QFormerConfig(latents=2, width=16, layers=1, heads=2, feed_forward=8)
    config = matched_connector(
        route,
        8000,
        encoders=[tokens(12)],
        width=10,
        inputs=shape,
        layers=shape,
        resampler=resampler,
    )
    made = Connector(config, [tokens(12)], 10, route.streams)
    count = sum(parameter.numel() for parameter in made.parameters())
    assert config.resampler == resampler and count == pytest.approx(8000, rel=0.01)


@pytest.mark.parametrize("hidden", [1, 5, 9])
def test_the_closest_width_is_found(hidden: int) -> None:
    route = Route.lal(3)
    shape = ProjectorConfig(depth=2)

    def match(parameters: int) -> int:
        config = matched_connector(
            route, parameters, encoders=[tokens(8)], width=10, inputs=shape, layers=shape
        )
        return config.layers["frames"].hidden

    def count(width: int) -> int:
        return 3 * (8 * width + width + width * 10 + 10)

    assert match(count(hidden)) == match(count(hidden) + 20) == hidden
    assert match(count(hidden) + 40) == hidden + 1
    assert match(1) == 1
