"""Planted circuits: models whose weights are set by hand, so that the right answer is known.

The decoder is a small Llama. One head, at one layer, reads one audio token of one stream, and what
it writes decides between the answers "A" and "B". All other heads and all MLPs write exactly zero:
whatever an analysis finds elsewhere is a fault of the analysis.

How it is done. The residual stream has a dimension for each thing that is to be known, and a large
constant, beside which the rest hardly matters to RMSNorm. All keys hold the same four marks (the
event, the sink, the relay word, any audio) and all values the same two facts (the class in an audio
token, the class as the relay word was told), in every layer and head. Roles are given by queries
and output weights alone: a head without a role has neither. A head with nothing to find rests on
the sink, the first word, whose value is zero. Scores are 30 apart, so a softmax is exactly 0 or 1
in float32, and RoPE's base is so large that the dimensions used here do not turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

from palscope._connectors import ConnectorConfig, ProjectorConfig
from palscope._hooks import HookedAudioModel
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._models.processor import AUDIO_TOKEN
from palscope._routing import FRAMES, FULL, PROJECTED, SUMMARY, Route
from palscope.encoders import WhisperEncoderConfig, build_encoder
from tests import tiny

Pathway = Literal["lal", "summary", "plits", "relay", "decoy"]
EventClass = Literal["A", "B"]

LAYERS, HEADS, KV_HEADS, D_HEAD, WIDTH = 4, 4, 2, 8, 32

WORDS = ("<pad>", "<end>", "<unknown>", "A", "B", "hear", "which", "sound", "was", "it", "answer")
SINK, RELAY, LAST = "hear", "sound", "answer"
PROMPT = f"{SINK} {AUDIO_TOKEN} which {RELAY} was it {LAST}"

# What the encoder's channels hold: there are as many mel bins as channels.
EVENT_CHANNEL, A_CHANNEL, B_CHANNEL, NUISANCE_CHANNEL = CHANNELS = range(4)
LOUD = 10.0  # gelu(10) is 10 exactly, gelu(0) is 0: the encoder passes both on unchanged

# Dimensions of the residual stream.
CONSTANT, IS_LAST, IS_RELAY, IS_SINK, AUDIO, EVENT, CLASS, NUISANCE, TOLD, ANSWER = range(10)
C = 16.0
UNIT = math.sqrt(WIDTH) / C  # what RMSNorm makes of 1, but for what stands beside the constant

# Dimensions of a head. Only the two slowest pairs of RoPE (2 with 6, 3 with 7) hold anything.
SINK_KEY, EVENT_KEY, RELAY_KEY, AUDIO_KEY = 2, 3, 6, 7
CLASS_VALUE, TOLD_VALUE = 0, 1

GAP = 30.0
WRITTEN = 8.0  # what a head writes, for A; the opposite for B
LOGIT = 3.0


@dataclass(frozen=True)
class Planted:
    """A planted model, and where the answer in it comes from.

    Attributes:
        pathway: as given to `plant`.
        stream: the stream that holds the event.
        layer, head: the head that reads the event.
        other: relay: the (layer, head) that reads the relay word; decoy: the decoy; else None.
        answers: ids of "A" and "B".
    """

    model: HookedAudioModel
    pathway: Pathway
    stream: str
    layer: int
    head: int
    other: tuple[int, int] | None
    answers: tuple[int, int]

    def inputs(
        self,
        event_class: EventClass | None,
        at_token: int,
        n_tokens: int = 12,
        nuisance: int | None = None,
    ) -> dict[str, Tensor]:
        """One prompt about a clip of `n_tokens` frames (0.1 s each) with an event at `at_token`.

        A summary stream has the event in its token `at_token // 3`. With a seed as `nuisance` the
        audio everywhere else differs from seed to seed in a way that nothing reads. Prompts of the
        same length stack into a batch by `torch.cat` of each tensor.
        """
        frames = torch.zeros(n_tokens, len(CHANNELS))
        if nuisance is not None:
            generator = torch.Generator().manual_seed(nuisance)
            frames[:, NUISANCE_CHANNEL] = LOUD * torch.rand(n_tokens, generator=generator)
            group = at_token // SUMMARY.ratio * SUMMARY.ratio  # what a summary token pools
            frames[group : group + SUMMARY.ratio, NUISANCE_CHANNEL] = 0
        if event_class is not None:
            channel = {"A": A_CHANNEL, "B": B_CHANNEL}[event_class]
            frames[at_token, [EVENT_CHANNEL, channel]] = LOUD
        processor = self.model.processor
        per_frame = processor.features_per_frame
        assert per_frame is not None  # one frame token after the other
        lengths = torch.tensor([n_tokens * per_frame])
        places = AUDIO_TOKEN * processor.audio_tokens(int(lengths))
        ids = processor.tokenizer(PROMPT.replace(AUDIO_TOKEN, places))["input_ids"]
        return {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
            "input_features": frames.repeat_interleave(processor.features_per_frame, 0).T[None],
            "feature_lengths": lengths,
        }

    def event_token(self, at_token: int) -> int:
        """The number, in its stream, of the audio token that holds the event."""
        return at_token // SUMMARY.ratio if self.stream == "summary" else at_token

    def event_column(self, at_token: int, n_tokens: int = 12) -> int:
        """The column of `input_ids` of the audio token that holds the event."""
        layout = self.model.layout(self.inputs(None, at_token, n_tokens))
        mine = layout.stream[0] == layout.stream_index(self.stream)
        return int((mine & (layout.token[0] == self.event_token(at_token))).nonzero())

    def relay_column(self, n_tokens: int = 12) -> int:
        """The column of the word that the relay's first head tells the class."""
        ids = self.inputs(None, 0, n_tokens)["input_ids"][0].tolist()
        return ids.index(WORDS.index(RELAY))

    def difference(self, logits: Tensor) -> float:
        """Logit of A less that of B at the last token of a single prompt."""
        a, b = self.answers
        return float(logits[0, -1, a] - logits[0, -1, b])


def plant(
    pathway: Pathway, *, layer: int = 1, head: int = 1, other: tuple[int, int] | None = None
) -> Planted:
    """A model in which the answer comes from one head through one pathway.

    - "lal": frames, keys only and projected at each layer; head (layer, head) at the last token
      reads the event. A full summary without the event stands beside.
    - "summary": the summary, full, holds the event; frames, without it, stand beside as keys.
    - "plits": frames, full; there is no other stream.
    - "relay": streams as in "lal". The head reads the event at the word "sound"; `other`, higher
      up, moves what it was told to the last token. The last token reads no audio.
    - "decoy": as "lal", but the head shares its attention between the event (0.57) and the first
      word (0.43), and `other` puts all of its attention on the event and writes nothing.

    Args:
        other: by default the relay's second head is (3, 2), and the decoy stands in the same layer
            and shares the head's KV head.
    """
    if other is None:
        other = {"relay": (3, 2), "decoy": (layer, head ^ 1)}.get(pathway)
    if pathway == "plits":
        route = Route.plits(LAYERS)
    else:
        route = Route(LAYERS, ((FRAMES, (PROJECTED,) * LAYERS), (SUMMARY, (FULL,) * LAYERS)))
    shape = ProjectorConfig(hidden=1, depth=1)
    connector = ConnectorConfig.for_route(
        route, inputs=shape, layers=shape, frames_per_token=5, summary_width=len(CHANNELS)
    )
    processor = small_processor(mel_bins=len(CHANNELS), ratios=[s.ratio for s in route.streams])
    model = PalscopeForConditionalGeneration.from_parts(
        _decoder(), _encoder(), route, connector, audio_token_id=processor.audio_token_id
    )
    stream = "summary" if pathway == "summary" else "frames"
    with torch.no_grad():
        _plant_connector(model, stream)
        roles = _Roles(model)
        if pathway == "relay":
            assert other is not None and other[0] > layer
            roles.give(layer, head, IS_RELAY, EVENT_KEY, CLASS_VALUE, TOLD, WRITTEN / UNIT)
            told = WRITTEN * math.sqrt(WIDTH) / math.hypot(C, WRITTEN)  # after the norm
            roles.give(*other, IS_LAST, RELAY_KEY, TOLD_VALUE, ANSWER, WRITTEN / told)
        else:
            gap = math.log(1.5) if pathway == "decoy" else GAP
            roles.give(layer, head, IS_LAST, EVENT_KEY, CLASS_VALUE, ANSWER, WRITTEN / UNIT, gap)
        if pathway == "decoy":
            assert other is not None and other != (layer, head)
            roles.give(*other, IS_LAST, EVENT_KEY, CLASS_VALUE, ANSWER, writes=0.0)
    hooked = HookedAudioModel(model.eval(), processor, f"planted-{pathway}")
    return Planted(
        hooked, pathway, stream, layer, head, other, (WORDS.index("A"), WORDS.index("B"))
    )


def planted_ear() -> HookedAudioModel:
    """A model whose encoder's attention and MLPs write zero, on PAL, with a random decoder.

    Sound so spreads by the log-mel's window and the two convolutions alone: encoder token `i` hears
    65 ms of samples around second `0.02 * i`. Takes waveforms; its words are `WORDS`.
    """
    route = Route.pal(tiny.LAYERS, [0, 2])
    processor = small_processor(mel_bins=8, ratios=[s.ratio for s in route.streams])
    model = tiny.model(route, vocab_size=len(WORDS))
    model.config.audio_token_id = processor.audio_token_id
    with torch.no_grad():
        _silence_layers(model.encoder)
    return HookedAudioModel(model, processor, "planted-ear")


def small_processor(mel_bins: int, ratios: list[int]) -> PalscopeProcessor:
    """A processor whose vocabulary is `WORDS`."""
    extractor = WhisperFeatureExtractor(feature_size=mel_bins)
    return PalscopeProcessor(extractor, small_tokenizer(), 10, ratios)


def small_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is `WORDS`."""
    words = {word: number for number, word in enumerate(WORDS)}
    whole = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=whole, unk_token="<unknown>", pad_token="<pad>", eos_token="<end>"
    )


def _encoder() -> Any:
    """Whisper's encoder as an identity: 50 tokens a second, its mel bins passed on."""
    width = len(CHANNELS)
    encoder: Any = build_encoder(
        WhisperEncoderConfig(
            d_model=width,
            encoder_layers=2,
            encoder_attention_heads=1,
            encoder_ffn_dim=4,
            num_mel_bins=width,
            layers=(1,),  # below the last, whose final norm would mix the channels
        )
    )
    with torch.no_grad():
        for convolution in (encoder.model.conv1, encoder.model.conv2):
            convolution.weight.copy_(torch.eye(width)[..., None] * torch.tensor([0.0, 1.0, 0.0]))
            convolution.bias.zero_()
        encoder.model.embed_positions.weight.zero_()
        _silence_layers(encoder)
    return encoder


def _silence_layers(encoder: Any) -> None:
    for layer in encoder.model.layers:
        for linear in (layer.self_attn.out_proj, layer.fc2):
            linear.weight.zero_()
            linear.bias.zero_()


def _decoder() -> Any:
    """A Llama in which every key and value holds what can be known, and nobody asks yet."""
    decoder: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            "llama",
            vocab_size=len(WORDS),
            hidden_size=WIDTH,
            intermediate_size=8,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            head_dim=D_HEAD,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
            tie_word_embeddings=False,
            rope_theta=1e16,
        )
    )
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        embeddings = decoder.model.embed_tokens.weight
        embeddings[:, CONSTANT] = C
        for word, dimension in ((SINK, IS_SINK), (RELAY, IS_RELAY), (LAST, IS_LAST)):
            embeddings[WORDS.index(word), dimension] = 1
        for answer, sign in (("A", 1), ("B", -1)):
            # An answer asks again: every step of decoding reads the event.
            embeddings[WORDS.index(answer), IS_LAST] = 1
            decoder.lm_head.weight[WORDS.index(answer), ANSWER] = sign * LOGIT
        for layer in decoder.model.layers:
            attention = layer.self_attn
            for kv_head in range(KV_HEADS):
                first = kv_head * D_HEAD
                for key, mark in (
                    (SINK_KEY, IS_SINK),
                    (EVENT_KEY, EVENT),
                    (RELAY_KEY, IS_RELAY),
                    (AUDIO_KEY, AUDIO),
                ):
                    attention.k_proj.weight[first + key, mark] = 1 / UNIT
                for value, fact in ((CLASS_VALUE, CLASS), (TOLD_VALUE, TOLD)):
                    attention.v_proj.weight[first + value, fact] = 1
    return decoder.eval()


def _plant_connector(model: PalscopeForConditionalGeneration, stream: str) -> None:
    """Audio tokens: the constant and the mark of audio; in `stream` the event and its class too."""
    connector = model.connector
    for summary in connector.summaries.values():
        summary.conv.weight.copy_(
            torch.eye(len(CHANNELS))[..., None].expand_as(summary.conv.weight)
        )
        summary.conv.bias.zero_()
    projectors: list[tuple[str, Any]] = list(connector.input_projectors.items())
    layers: Any
    for name, layers in connector.layer_projectors.items():
        projectors += [(name, mlp) for mlp in layers.values()]
    for name, mlp in projectors:
        linear: Any = mlp[0]
        linear.weight.zero_()
        linear.bias.zero_()
        linear.bias[CONSTANT] = C
        linear.bias[AUDIO] = 1
        linear.weight[NUISANCE, NUISANCE_CHANNEL] = 1 / LOUD
        if name == stream:
            linear.weight[EVENT, EVENT_CHANNEL] = 1 / LOUD
            linear.weight[CLASS, A_CHANNEL] = 1 / LOUD
            linear.weight[CLASS, B_CHANNEL] = -1 / LOUD


class _Roles:
    """Gives heads of `model` something to look for and something to say."""

    def __init__(self, model: PalscopeForConditionalGeneration) -> None:
        self._layers = model.language_model.model.layers

    def give(
        self,
        layer: int,
        head: int,
        asked_by: int,
        key: int,
        value: int,
        written: int,
        writes: float,
        gap: float = GAP,
    ) -> None:
        """Where `asked_by` is marked, read `value` at the `key` and write it as `written`.

        The key found scores `gap` more than the sink, and the sink `GAP` more than all others.
        """
        attention = self._layers[layer].self_attn
        first, root = head * D_HEAD, math.sqrt(D_HEAD)
        attention.q_proj.weight[first + SINK_KEY, CONSTANT] = GAP * root / (C * UNIT)
        attention.q_proj.weight[first + key, asked_by] = (GAP + gap) * root / UNIT
        attention.o_proj.weight[written, first + value] = writes
