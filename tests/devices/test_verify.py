"""`palscope verify` on a pretended device, its line `CPU = GPU` included."""

from __future__ import annotations

from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

import palscope
from palscope._published import published_family
from palscope._verify import Sides, verify
from palscope._verify.own import own_prompt
from palscope._verify.plain import plain_published
from tests.devices.pretended import FIRST
from tests.published.tiny import qwen2_5_omni
from tests.verify.conftest import CLIP


def test_every_check_is_made_of_a_model_on_a_device() -> None:
    def model() -> Any:
        return qwen2_5_omni.model().to(FIRST)

    def plain(row: Any) -> Any:
        made = model()
        family = published_family(made.config)
        return plain_published(made, family, own_prompt(qwen2_5_omni.processor(), family, row))

    def hooked() -> Any:
        return palscope.load(model(), processor=qwen2_5_omni.processor())

    with sdpa_kernel(SDPBackend.MATH):
        report = verify(Sides("qwen2_5_omni", plain, hooked), CLIP)
    assert not report.failed, report.failed
    assert {each.name for each in report.unchecked} == {"files", "memory"}
    last = report.results[-1]
    assert last.name == "CPU = GPU" and last.says == "equal bit for bit to the GPU's"
