"""From a GGUF file to a folder of safetensors with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from palscope.errors import CheckpointError


def convert_gguf(gguf: Path, out: Path) -> None:
    """Write a GGUF model as a plain Hugging Face folder: float16 safetensors and its tokenizer.

    transformers reads the weights: it dequantises, and undoes the permutation that GGUF applies to
    the rows of q and k for interleaved RoPE. Against the dequantised float32 weights, float16
    moves SmolLM2's logits (up to 40) by at most 0.04, a divergence of 3e-5 nats a token; bfloat16
    by 0.28 and 1e-3 nats; float32 would move nothing and be twice as large.
    """
    import torch
    from transformers import AutoModelForCausalLM

    # Any: transformers' Auto classes are typed too loosely to follow.
    quantised = cast(
        Any,
        AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32),
    )
    # A model read from GGUF refuses to be saved; a plain one of the same shape does not.
    settings = quantised.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path", "transformers_version"):
        settings.pop(key, None)
    # GGUF keeps it as float32, which prints as 9.999999747378752e-06.
    settings["rms_norm_eps"] = float(f"{settings['rms_norm_eps']:.6g}")
    config = cast(Any, type(quantised.config).from_dict(settings))
    plain: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    plain.load_state_dict(quantised.state_dict())
    plain.generation_config = quantised.generation_config
    plain.save_pretrained(out)

    _tokenizer_of(gguf, config.max_position_embeddings).save_pretrained(out)


def _tokenizer_of(gguf: Path, max_length: int) -> Any:
    """The byte-level BPE tokenizer that a GGUF file describes, as a fast Hugging Face tokenizer.

    Not through transformers' own reader: 5.17 takes the wrong token for the end, none of those
    tried knows SmolLM's rule that every digit is a token of its own.

    Raises:
        CheckpointError: the file holds a tokenizer of another kind.
    """
    from gguf import GGUFReader, TokenType
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields

    def read(key: str) -> Any:
        return fields[f"tokenizer.{key}"].contents()

    kind = (read("ggml.model"), read("ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise CheckpointError(
            f"{gguf.name} has a tokenizer of kind {kind}; palscope converts ('gpt2', 'smollm')."
        )
    tokens = cast(list[str], read("ggml.tokens"))
    types = cast(list[int], read("ggml.token_type"))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in read("ggml.merges")]

    def special(role: str) -> str:
        return tokens[int(read(f"ggml.{role}_token_id"))]

    tokenizer: Any = Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    control = [
        token for token, type in zip(tokens, types, strict=True) if type == TokenType.CONTROL
    ]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special("bos"),
        eos_token=special("eos"),
        unk_token=special("unknown"),
        pad_token=special("padding"),
        chat_template=read("chat_template"),
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
