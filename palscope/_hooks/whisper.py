"""Whisper's decoder under TransformerLens, which knows the encoder alone.

A layer has two attentions, `attn` over the words and `cross_attn` over sound, and so three norms:
`ln1`, `ln_cross`, and `ln2` before the feed-forward network, as in decoders with one attention.
"""

from __future__ import annotations

from typing import Any

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


class WhisperDecoderAdapter(ArchitectureAdapter):
    """The decoder of `WhisperForConditionalGeneration`, as its own config has it."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        cfg.normalization_type = "LN"
        cfg.positional_embedding_type = "standard"
        cfg.final_rms = False
        cfg.gated_mlp = False
        cfg.attn_only = False
        self.supports_fold_ln = False
        self.supports_center_writing_weights = False
        self.weight_processing_conversions = {}
        block = KernelBlock(
            name="model.layers",
            hook_alias_overrides={
                "hook_mlp_out": "mlp.out.hook_out",
                "hook_cross_attn_out": "cross_attn.hook_out",
            },
            submodules={
                "ln1": self._norm("self_attn_layer_norm"),
                "attn": self._attention("self_attn"),
                "ln_cross": self._norm("encoder_attn_layer_norm"),
                "cross_attn": self._attention("encoder_attn", is_cross_attention=True),
                "ln2": self._norm("final_layer_norm"),
                "mlp": MLPBridge(
                    name=None,
                    config=cfg,
                    submodules={"in": LinearBridge(name="fc1"), "out": LinearBridge(name="fc2")},
                ),
            },
        )
        self.component_mapping = {
            "embed": EmbeddingBridge(name="model.embed_tokens"),
            "pos_embed": PosEmbedBridge(name="model.embed_positions"),
            "blocks": block,
            "ln_final": self._norm("model.layer_norm"),
            "unembed": UnembeddingBridge(name="lm_head"),
        }

    def _norm(self, name: str) -> NormalizationBridge:
        return NormalizationBridge(name=name, config=self.cfg, use_native_layernorm_autograd=True)

    def _attention(self, name: str, **kwargs: Any) -> KernelAttention:
        parts = {each: LinearBridge(name=f"{each}_proj") for each in ("q", "k", "v")}
        parts["o"] = LinearBridge(name="out_proj")
        return KernelAttention(name=name, config=self.cfg, submodules=dict(parts), **kwargs)


ArchitectureAdapterFactory.register_adapter("PalscopeWhisperDecoder", WhisperDecoderAdapter)
