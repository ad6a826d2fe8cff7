"""Chat templates that do not end, grow, or are none: refused within bounds, in both processors."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from palscope._models import AUDIO_TOKEN, PalscopeProcessor
from palscope._models import chat_format as module
from palscope._published.loading import wrap_published
from palscope.errors import CheckpointError, PromptError
from tests import tiny
from tests.models.test_damaged import ROUTE, tokenizer
from tests.published.tiny import qwen2_audio

PLAIN = "{{ messages[0]['content'] }} answer:"


def processor(template: Any) -> PalscopeProcessor:
    made = tiny.model(ROUTE)
    words = tokenizer()
    words.chat_template = template
    extractor = made.encoder.feature_extractor()
    return PalscopeProcessor.for_grid(extractor, words, made.frame_grid, made.streams)


LOOP = "{% for _ in range(99999) %}"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (LOOP * 4 + "{% endfor %}" * 4, "does not end within 2 s"),
        ("{{ 'a' * 10 ** 10 }}", "more than 512 MB"),
        ("{{ 'a'.ljust(10 ** 10) }}", "more than 512 MB"),
        (
            "{% set n = namespace(s='aa') %}{% for _ in range(60) %}{% set n.s = n.s ~ n.s %}"
            "{% endfor %}",
            "more than 512 MB",
        ),
        ("{% for _ in range(10 ** 9) %}{% endfor %}", "OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 'ab' * 1000000 }}", "makes 2000000 characters"),
        ("{% for", "TemplateSyntaxError"),
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages[0].content.a.b.c }}", "UndefinedError"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: str, told: str) -> None:
    made = processor(template)
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=rf"chat template cannot be used: .*{told}"):
        made.chat("what?")
    assert time.monotonic() - began < module._WALL_SECONDS


def test_a_published_models_template_is_bounded_too() -> None:
    _, made = wrap_published(qwen2_audio.model(), qwen2_audio.processor())
    made.chat_template = "{{ 'a' * 10 ** 10 }}"
    with pytest.raises(CheckpointError, match="more than 512 MB"):
        made.chat("what?")


def test_a_template_is_tried_out_once_and_from_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_tried", set())
    forks: list[int] = []
    real = os.fork

    def fork() -> int:
        forks.append(real())
        return forks[-1]

    monkeypatch.setattr(os, "fork", fork)
    made = processor(PLAIN)
    said: list[str] = []
    worker = threading.Thread(target=lambda: said.append(made.chat("what?")))
    worker.start()
    worker.join()
    said.append(made.chat("what?"))
    assert said == [f"{AUDIO_TOKEN}what? answer:"] * 2 and len(forks) == 1
    # No child is left behind.
    with pytest.raises(ChildProcessError):
        os.waitpid(forks[0], os.WNOHANG)


# As Llama 3.2's template asks, of which the paper's decoders are.
DATED = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    '{% set date_string = strftime_now("%d %b %Y") %}{% else %}{% set date_string = "?" %}'
    "{% endif %}"
    "{% endif %}Today: {{ date_string }}. {{ messages[0]['content'] }} answer:"
)


def test_a_system_message_without_clips_is_taken_and_no_other() -> None:
    made = processor("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}")
    made.system = "be brief"
    assert made.chat("what?") == f"system: be brief user: {AUDIO_TOKEN}what? "
    made.system = f"hear {AUDIO_TOKEN}"
    with pytest.raises(PromptError, match="the system message holds"):
        made.chat("what?")


def test_a_prompt_is_the_same_on_every_day_and_the_day_is_saved(tmp_path: Path) -> None:
    made = processor(DATED)
    assert made.chat("what?") == f"Today: 19 Dec 2024. {AUDIO_TOKEN}what? answer:"
    made.date = "2025-03-01"
    made.save_pretrained(tmp_path)
    again = PalscopeProcessor.from_pretrained(tmp_path)
    assert again.chat("what?") == f"Today: 01 Mar 2025. {AUDIO_TOKEN}what? answer:"
    assert module.prompt_settings(again) == {"system": None, "date": "2025-03-01"}
    assert module.prompt_settings(processor(PLAIN)) == {"system": None, "date": None}


@pytest.mark.parametrize("template", ["{{ messages|length }} answer:", PLAIN * 2])
def test_a_template_that_loses_or_doubles_a_clip_is_refused(template: str) -> None:
    with pytest.raises(CheckpointError, match=r"writes \d time\(s\) <\|audio\|> for 1 clip"):
        processor(template).chat("what?")


@pytest.mark.parametrize(
    ("template", "system", "lost"),
    [
        (f"{AUDIO_TOKEN} answer:", None, "what is it"),
        ("{{ messages[-1]['content'] }} answer:", "be brief", "be brief"),
        (None, "be brief", "be brief"),
    ],
)
def test_a_template_that_loses_words_is_refused(
    template: str | None, system: str | None, lost: str
) -> None:
    made = processor(template)
    made.system = system
    with pytest.raises(CheckpointError, match=f"it leaves out '{lost}'"):
        made.chat("what is it")


def test_a_published_model_is_told_before_it_is_asked_that_its_template_loses_words() -> None:
    own = qwen2_audio.processor()
    own.chat_template = "{% for m in messages %}<|audio_bos|><|AUDIO|><|audio_eos|>{% endfor %}"
    with pytest.raises(CheckpointError, match="it leaves out 'palscope'"):
        wrap_published(qwen2_audio.model(), own)
