"""A GGUF file becomes the folder of the model that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, TokenType
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from palscope._models.base_weights import find_base
from palscope._models.gguf_files import convert_gguf

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=261,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.3,  # wide enough for attention to matter
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def gguf(tiny: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as llama.cpp would write it: rows of q and k permuted, float32."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    config: Any = tiny.config
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(config.vocab_size)

    letters = _byte_letters()
    # One merge that only splitting digits forbids: without the rule "12" would be one token.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*SPECIAL, *letters, "12", "ab"])
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * 258)
    writer.add_token_merges(["1 2", "a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)

    state = {name: tensor.numpy() for name, tensor in tiny.state_dict().items()}
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for short, long in names.items():
            weight = state[f"model.layers.{layer}.{long}.weight"]
            if short in heads:
                weight = _permuted(weight, heads[short])
            writer.add_tensor(f"blk.{layer}.{short}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's `permute`: from RoPE on halves to RoPE on neighbours."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _byte_letters() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return list(bytes_to_unicode().values())


def test_a_converted_gguf_gives_the_logits_of_the_model_it_was_made_from(
    tiny: LlamaForCausalLM, gguf: Path, tmp_path: Path
) -> None:
    convert_gguf(gguf, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        expected, got = tiny(ids).logits, model(ids).logits
    # Measured: 0.02 for storage in float16, 5 with q and k left permuted.
    assert (expected - got).abs().max() < 0.05 * expected.std()
    assert model.config.rms_norm_eps == 1e-5
    assert "quantization_config" not in model.config.to_dict()
    assert (model.config.bos_token_id, model.config.eos_token_id) == (1, 2)


def test_a_converted_tokenizer_splits_digits_and_keeps_template_and_special_tokens(
    gguf: Path, tmp_path: Path
) -> None:
    convert_gguf(gguf, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("ab12") == ["ab", "1", "2"]
    ids = tokenizer.apply_chat_template([{"content": "é 1"}], return_dict=False)
    assert tokenizer.decode(ids) == "<|im_start|>é 1<|im_end|>"
    assert (ids[0], ids[-1]) == (1, 2)
    assert tokenizer.pad_token_id == 2
    assert tokenizer.model_max_length == 128


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france() -> None:
    folder = find_base(NAME)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert tokenizer.tokenize("a 12") == ["a", "Ġ", "1", "2"]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
    assert text == "The capital of France is Paris.<|im_end|>"
