"""Every published class in a folder as its hub has it, fetched by the hub's own client."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig

import palscope
from palscope._models.chat_format import PROMPT_DATE, prompt_settings
from palscope._models.scoring import answer_ids, batched_choice_logprobs, end_tokens, greedy_tokens
from palscope._published import PublishedProcessor, published_family
from palscope._verify.own import own_inputs, same_places
from palscope.errors import CheckpointError, PromptError
from palscope.interventions._cells import with_encoded
from tests.fake_hub import serving
from tests.published.contract import CASES, RATE, WORDS, noise
from tests.published.folders.build import about, hub_folder, template, tiny

STEPS = 4
"""A random model may write a clip's place later."""


class Fetched:
    """A class opened by its hub name, and what its folder says."""

    def __init__(self, name: str, folder: Path, hooked: Any) -> None:
        self.name, self.folder, self.hooked = name, folder, hooked
        self.known = about(name)
        self.case = next(case for case in CASES if case.name == name)
        self.clip = noise(min(self.case.seconds))

    def own(self) -> Any:
        """The class's own processor, with the chat template that transformers finds here."""
        made = tiny(self.name).processor()
        found = type(made).get_processor_dict(self.folder)[0].get("chat_template")
        if self.known["chat"] is None and self.name != "voxtral":
            found = type(made)(made.feature_extractor, made.tokenizer).chat_template
        made.chat_template = found or AutoTokenizer.from_pretrained(self.folder).chat_template
        if self.in_text:
            written = made.apply_chat_template

            def as_text(messages: Any, **kwargs: Any) -> Any:
                return written(
                    [{**each, "content": self.text(each)} for each in messages], **kwargs
                )

            made.apply_chat_template = as_text
        return made

    def asked(self, own: Any, rows: list[Any]) -> dict[str, Tensor]:
        """Rows through the class's own processor; places without sound as words."""
        family = self.hooked.model.family
        made = own_inputs(own, family, rows)
        ids = same_places(made["input_ids"], made, family, sum(len(heard) for heard, _ in rows))
        return {**made, "input_ids": ids}

    @property
    def in_text(self) -> bool:
        """Whether the class's clips are marks in the message's text."""
        return isinstance(self.hooked.processor.family.content("", 0), str)

    def text(self, message: Any) -> str:
        """A message's content as text."""
        place, content = self.hooked.processor.audio_token, message["content"]
        if isinstance(content, str):
            return content
        return "".join(place if part["type"] == "audio" else part["text"] for part in content)


@pytest.fixture(scope="module", params=[case.name for case in CASES])
def fetched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fetched]:
    name, place = request.param, tmp_path_factory.mktemp(request.param)
    folder, known = hub_folder(name, place / "repository"), about(name)
    with pytest.MonkeyPatch.context() as patch:
        revisions = {known.get("revision", "main"): folder}
        with serving(place / "cache", patch, {known["repository"]: revisions}):
            hooked = palscope.load(known["repository"], revision=known.get("revision"))
    yield Fetched(name, folder, hooked)


def test_prompts_are_those_of_the_class_s_own_processor(fetched: Fetched) -> None:
    if fetched.name == "voxtral":  # mistral-common's alone: test_voxtral.py
        return
    processor, own = fetched.hooked.processor, fetched.own()
    processor.date = datetime.date.today().isoformat()  # as the class has it
    try:
        for count in fetched.case.own_batches:
            rows = [([fetched.clip] * clips, WORDS[0]) for clips in count]
            texts = [processor.chat(WORDS[0], clips=clips) for clips in count]
            clips = [clip for row, _ in rows for clip in row]
            ours = processor(texts, clips, sampling_rate=RATE)
            theirs = fetched.asked(own, rows)
            assert torch.equal(ours["input_ids"], theirs["input_ids"]), texts
    finally:
        processor.date = PROMPT_DATE


def test_a_system_message_stands_where_the_class_has_it(fetched: Fetched) -> None:
    processor = fetched.hooked.processor
    plain = processor.chat(WORDS[0])
    processor.system = "say in this sound"
    try:
        if fetched.name == "voxtral":
            with pytest.raises(PromptError, match="without system messages"):
                processor.chat(WORDS[0])
            return
        said = [{"type": "audio"}, {"type": "text", "text": WORDS[0]}]
        before = "say in this sound"
        if fetched.name == "qwen3_asr":  # whose template drops a user's words
            before = f"{before}\n{said.pop()['text']}"
        wanted = fetched.own().apply_chat_template(
            [{"role": "system", "content": before}, {"role": "user", "content": said}],
            tokenize=False,
            add_generation_prompt=True,
        )
        assert processor.chat(WORDS[0]) == wanted != plain
        processor.system = f"a {processor.audio_token}"
        with pytest.raises(PromptError, match="the system message holds"):
            processor.chat(WORDS[0])
        processor.system = 3
        with pytest.raises(PromptError, match="the system message is 3; expected text"):
            processor.chat(WORDS[0])
    finally:
        processor.system = None


def test_an_answer_ends_as_the_class_ends_its_turn(fetched: Fetched) -> None:
    """By the chat format, not by the tokenizer's end of text, in every scorer."""
    processor, model = fetched.hooked.processor, fetched.hooked.model
    wanted = fetched.known["turn_end"]
    if wanted is None:
        return
    end = processor.tokenizer.convert_tokens_to_ids(wanted)
    ids = answer_ids(processor, WORDS[2])
    assert ids[-1] == end and end in end_tokens(model, processor)
    if fetched.known["generation_config"] is not None:
        given = model.checkpoint_generation.eos_token_id
        assert end in (given if isinstance(given, list) else [given])
    inputs = fetched.hooked.inputs(WORDS[0], fetched.clip)
    whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
    mask = torch.ones_like(whole)
    with torch.no_grad():
        logits = model(**{**inputs, "input_ids": whole, "attention_mask": mask}).logits
    logp = logits[0, -len(ids) - 1 : -1].float().log_softmax(-1)
    total = float(logp.gather(-1, torch.tensor(ids)[:, None]).sum())
    [ranked] = batched_choice_logprobs(model, processor, [([fetched.clip], WORDS[0], [WORDS[2]])])
    assert ranked[0] == pytest.approx(total, abs=1e-3)


def _likeliest(model: Any, inputs: dict[str, Tensor], steps: int) -> list[int]:
    ids = inputs["input_ids"]
    for _ in range(steps):
        given = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        ids = torch.cat([ids, model(**given).logits[:, -1:].argmax(-1)], 1)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


@torch.no_grad()
def test_greedy_is_the_likeliest_whatever_the_folder_says(fetched: Fetched) -> None:
    model, processor = fetched.hooked.model, fetched.hooked.processor
    inputs = with_encoded(fetched.hooked, fetched.hooked.inputs(WORDS[0], fetched.clip))
    wanted = _likeliest(model, inputs, STEPS)
    got: list[int] = greedy_tokens(model, processor, inputs, STEPS)[0].tolist()
    ends = set(end_tokens(model, processor))
    last = next((i + 1 for i, token in enumerate(wanted) if token in ends), STEPS)
    assert got[:last] == wanted[:last]
    assert model.generation_config.repetition_penalty in (None, 1.0)
    own = model.checkpoint_generation
    penalty = (fetched.known["generation_config"] or {}).get("repetition_penalty")
    assert own.repetition_penalty == penalty
    assert model.generation_set_aside.get("repetition_penalty") == penalty
    if penalty is None:
        return
    # The class's own, by choice; strong enough to change a random model's answer.
    strong: GenerationConfig = copy.deepcopy(own)
    strong.do_sample, strong.repetition_penalty = False, 5.0
    strong.temperature = strong.top_k = strong.top_p = None
    model.take_generation(strong)
    try:
        got = greedy_tokens(model, processor, inputs, STEPS)[0].tolist()
        assert got[:last] == wanted[:last]
        chosen = greedy_tokens(model, processor, inputs, STEPS, own_settings=True)
        text = [each for each in inputs["input_ids"][0].tolist() if each != model.audio_token_id]
        assert chosen[0].tolist() == _penalised(model, inputs, text, 5.0, STEPS, ends) != wanted
    finally:
        model.take_generation(own)


def _penalised(
    model: Any,
    inputs: dict[str, Tensor],
    text: list[int],
    penalty: float,
    steps: int,
    ends: set[int],
) -> list[int]:
    """Greedy with a repetition penalty (arXiv 1909.05858), by hand."""
    said: list[int] = []
    ids = inputs["input_ids"]
    while len(said) < steps and not (said and said[-1] in ends):
        given = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = model(**given).logits[0, -1].clone()
        seen = sorted({*text, *said})
        logits[seen] = torch.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
        said.append(int(logits.argmax()))
        ids = torch.cat([ids, torch.tensor([said[-1:]])], 1)
    return said


@torch.no_grad()
def test_logits_are_the_plain_class_s(fetched: Fetched) -> None:
    kind = getattr(transformers, fetched.hooked.model.family.architecture)
    with fetched.hooked.model.family.loading():
        plain = kind.from_pretrained(fetched.folder).eval()
    if fetched.name == "phi4_multimodal":
        from peft import PeftConfig

        config = PeftConfig.from_pretrained(str(fetched.folder / "speech-lora"))
        config.target_modules = rf"model\.{config.target_modules}"
        place = str(fetched.folder / "speech-lora")
        plain.load_adapter(place, adapter_name="speech", peft_config=config)
    if fetched.name == "voxtral":
        return
    fetched.case.takes_ours(plain)
    given = fetched.asked(fetched.own(), [([fetched.clip], WORDS[0])])
    processor = fetched.hooked.processor
    processor.date = datetime.date.today().isoformat()
    try:
        inputs = fetched.hooked.inputs(WORDS[0], fetched.clip)
    finally:
        processor.date = PROMPT_DATE
    wanted, got = plain(**given).logits, fetched.hooked(inputs)
    text = inputs["input_ids"] != fetched.hooked.model.audio_token_id
    torch.testing.assert_close(got[text], wanted[text], atol=fetched.case.atol, rtol=0)


# -- templates ------------------------------------------------------------------------------------


@pytest.fixture
def qwen2(tmp_path: Path) -> Path:
    return hub_folder("qwen2_audio", tmp_path / "qwen2")


def test_a_template_of_older_transformers_keeps_the_clip(qwen2: Path) -> None:
    """It tells a clip by a key, where others tell it by its type."""
    (qwen2 / "chat_template.jinja").write_text(template("qwen2_audio_older"), "utf-8")
    hooked: Any = palscope.load(qwen2)
    assert hooked.processor.chat("what?", 2).count("<|audio_bos|><|AUDIO|><|audio_eos|>") == 2
    text = hooked.processor.chat("what?")
    assert text == template_of_the_class(qwen2).replace("QUESTION", "what?")


def template_of_the_class(folder: Path) -> str:
    own = transformers.Qwen2AudioProcessor.from_pretrained(folder, chat_template=None)
    own.chat_template = own.default_chat_template
    content = [{"type": "audio"}, {"type": "text", "text": "QUESTION"}]
    said: Any = [{"role": "user", "content": content}]
    return str(own.apply_chat_template(said, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize(
    "place", ["chat_template.jinja", "chat_template.json", "processor_config.json"]
)
def test_a_template_that_loses_the_clip_is_told_before_weights_are_read(
    qwen2: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = "{% for m in messages %}{{ m['role'] }}: {{ m['content'][-1]['text'] }}\n{% endfor %}"
    text = deaf if place.endswith("jinja") else json.dumps({"chat_template": deaf})
    (qwen2 / place).write_text(text, "utf-8")

    def read(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("weights were read")

    kind = transformers.Qwen2AudioForConditionalGeneration
    monkeypatch.setattr(kind, "from_pretrained", read)
    with pytest.raises(CheckpointError, match=r"writes 0 time\(s\) <\|AUDIO\|> for 1 clip"):
        palscope.load(qwen2)


def test_the_date_is_the_same_on_every_day_unless_one_is_given() -> None:
    made = tiny("granite_speech")
    own, family = made.processor(), published_family(made.config())
    processor = PublishedProcessor(
        family, own.tokenizer, own.audio_processor, template("granite_speech")
    )
    assert "Today's Date: December 19, 2024." in processor.chat("what?")
    processor.date = "2025-03-01"
    assert "Today's Date: March 01, 2025." in processor.chat("what?")
    assert prompt_settings(processor) == {"system": None, "date": "2025-03-01"}
    processor.date = "yesterday"
    with pytest.raises(PromptError, match="'yesterday'; expected one as 2024-12-19"):
        processor.chat("what?")
