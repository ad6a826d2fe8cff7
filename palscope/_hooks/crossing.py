"""Decoders with cross-attention under TransformerLens, which knows Whisper's encoder alone.

A layer has two attentions, `attn` over the words and `cross_attn` over sound, and so three norms:
`ln1`, `ln_cross`, and `ln2` before the feed-forward network, as in decoders with one attention.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.generalized_components import (
    AttentionBridge,
    BlockBridge,
    EmbeddingBridge,
    LinearBridge,
    MLPBridge,
    NormalizationBridge,
    PosEmbedBridge,
    UnembeddingBridge,
)

from palscope._models.attention_function import AttentionFunction, redirected
from palscope._models.masks import as_added


class KernelAttention(AttentionBridge):
    """An attention whose scores and pattern are hooked inside Hugging Face's own forward.

    TransformerLens computes attention anew where something inside is hooked, and knows RoPE alone.
    Here the forward stays Hugging Face's, and its kernel is one that passes the hook points.
    """

    supports_split_qkv_fork = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Hugging Face's forward, its kernel hooked."""
        with redirected(self.original_component, self._kernel):
            return super().forward(*args, **kwargs)

    def _kernel(
        self,
        own: AttentionFunction,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        *,
        scaling: float,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Eager attention, past `hook_attn_scores` and `hook_pattern`."""
        del own, kwargs
        causal = module.is_causal and query.shape[2] > 1
        scores = query @ key.transpose(2, 3) * scaling
        closed = as_added(mask, scores, causal=causal)
        scores = self.hook_attn_scores(scores if closed is None else scores + closed)
        pattern = self.hook_pattern(scores.softmax(-1))
        return (pattern @ value).transpose(1, 2).contiguous(), None


class KernelBlock(BlockBridge):
    """A layer of such attentions, which have no inputs of their own for each of q, k and v."""

    hook_aliases = {  # noqa: RUF012 (TransformerLens has it so)
        name: place
        for name, place in BlockBridge.hook_aliases.items()
        if name not in ("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")
    }


class CrossingAdapter(ArchitectureAdapter):
    """A decoder of such layers, by the names that its class gives to their parts."""

    norms: ClassVar[tuple[str, str, str]]
    """Before words are read, before sound is, before the feed-forward network."""
    final_norm: ClassVar[str]
    out: ClassVar[str]
    """What puts the heads of an attention together."""
    feed_forward: ClassVar[str | None]
    """The module that holds `fc1` and `fc2`; None where the layer does."""
    learned_positions: ClassVar[str | None] = None
    """Their embedding; None where positions are turned into queries and keys."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        cfg.normalization_type = "LN"
        cfg.positional_embedding_type = "standard" if self.learned_positions else "rotary"
        cfg.final_rms = False
        cfg.gated_mlp = False
        cfg.attn_only = False
        self.supports_fold_ln = False
        self.supports_center_writing_weights = False
        self.weight_processing_conversions = {}
        before_words, before_sound, before_mlp = self.norms
        mlp = {"in": LinearBridge(name="fc1"), "out": LinearBridge(name="fc2")}
        block = KernelBlock(
            name="model.layers",
            hook_alias_overrides={
                "hook_mlp_out": "mlp.out.hook_out",
                "hook_cross_attn_out": "cross_attn.hook_out",
            },
            submodules={
                "ln1": self._norm(before_words),
                "attn": self._attention("self_attn"),
                "ln_cross": self._norm(before_sound),
                "cross_attn": self._attention("encoder_attn", is_cross_attention=True),
                "ln2": self._norm(before_mlp),
                "mlp": MLPBridge(name=self.feed_forward, config=cfg, submodules=dict(mlp)),
            },
        )
        self.component_mapping = {
            "embed": EmbeddingBridge(name="model.embed_tokens"),
            "blocks": block,
            "ln_final": self._norm(f"model.{self.final_norm}"),
            "unembed": UnembeddingBridge(name="lm_head"),
        }
        if self.learned_positions is not None:
            place = f"model.{self.learned_positions}"
            self.component_mapping["pos_embed"] = PosEmbedBridge(name=place)

    def _norm(self, name: str) -> NormalizationBridge:
        return NormalizationBridge(name=name, config=self.cfg, use_native_layernorm_autograd=True)

    def _attention(self, name: str, **kwargs: Any) -> KernelAttention:
        parts = {each: LinearBridge(name=f"{each}_proj") for each in ("q", "k", "v")}
        parts["o"] = LinearBridge(name=self.out)
        return KernelAttention(name=name, config=self.cfg, submodules=dict(parts), **kwargs)


class WhisperDecoderAdapter(CrossingAdapter):
    """The decoder of `WhisperForConditionalGeneration`, as its own config has it."""

    norms = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")
    final_norm = "layer_norm"
    out = "out_proj"
    feed_forward = None
    learned_positions = "embed_positions"


class MoonshineDecoderAdapter(CrossingAdapter):
    """The decoder of `MoonshineForConditionalGeneration`; its `fc1` holds the gate, too."""

    norms = ("input_layernorm", "post_attention_layernorm", "final_layernorm")
    final_norm = "norm"
    out = "o_proj"
    feed_forward = "mlp"


ArchitectureAdapterFactory.register_adapter("PalscopeWhisperDecoder", WhisperDecoderAdapter)
ArchitectureAdapterFactory.register_adapter("PalscopeMoonshineDecoder", MoonshineDecoderAdapter)
