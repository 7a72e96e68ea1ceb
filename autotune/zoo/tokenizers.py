"""Tokenizers that need no files: real transformers objects with a vocabulary made up here.

What a stand-in keeps of the published tokenizer: its class, the length it pads and cuts to, and special tokens where
the text encoder looks for them. What it does not keep: the merges. Every character is a token, so the prompt is longer
in tokens than it really is; shapes do not notice, because pipelines pad and cut to a fixed length.
"""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from autotune.errors import PipelineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["stand_in"]

# The 256 characters that stand for bytes in byte-level BPE, in the order of CLIP's vocabulary: "!" has id 0 (GPT-2's
# bytes_to_unicode).
_BYTES = "".join(map(chr, [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]))
# CLIPTextConfig.eos_token_id of the checkpoints published before transformers 4.28: the encoder then takes the highest
# id as the end of the text (CLIPTextTransformer.forward).
_LEGACY_EOS = 2
# Length of T5's training sequences (the `n_positions` of its configurations).
_T5_LENGTH = 512


def stand_in(
    class_name: str, model_max_length: int | None, text_config: Any, *, pad_token: str | None = None
) -> PreTrainedTokenizerBase:
    """A tokenizer of that class for a text encoder with that configuration.

    Args:
        class_name: the tokenizer's class in transformers, for example "CLIPTokenizer".
        model_max_length: tokens to pad and cut to; None for what the text encoder was made for.
        text_config: the text encoder's configuration object; its vocabulary bounds the ids.
        pad_token: the padding token, where it is not the class's own.

    Raises:
        PipelineError: a tokenizer class that cannot be made without its files.

    >>> from transformers import CLIPTextConfig
    >>> tokens = stand_in("CLIPTokenizer", 77, CLIPTextConfig())("a cat", padding="max_length").input_ids
    >>> len(tokens), tokens[0], tokens[-1]
    (77, 49406, 49407)
    """
    make = _MAKERS.get(class_name)
    if make is None:
        raise PipelineError(
            f"{class_name} cannot be made up without its files; put its tokenizer.json into the folder "
            f"(made up without files: {', '.join(_MAKERS)})"
        )
    return make(model_max_length, text_config, {} if pad_token is None else {"pad_token": pad_token})


def _clip(length: int | None, config: Any, special: dict[str, str]) -> PreTrainedTokenizerBase:
    from transformers import CLIPTokenizer

    bos, eos = config.bos_token_id, config.eos_token_id
    if eos == _LEGACY_EOS:
        bos, eos = config.vocab_size - 2, config.vocab_size - 1
    pieces = [*_BYTES, *(char + "</w>" for char in _BYTES)]
    if len(pieces) + 2 > config.vocab_size:
        pieces = [*ascii_lowercase, *(char + "</w>" for char in ascii_lowercase)]
    free = (token for token in range(config.vocab_size) if token not in {bos, eos})
    vocabulary = {"<|startoftext|>": bos, "<|endoftext|>": eos, **dict(zip(pieces, free, strict=False))}
    limit = length or config.max_position_embeddings
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=limit, **special)


def _t5(length: int | None, config: Any, special: dict[str, str]) -> PreTrainedTokenizerBase:
    from transformers import T5Tokenizer

    letters = dict.fromkeys(ascii_lowercase + _BYTES[:188])  # the printable ones: ASCII and Latin-1
    # T5Tokenizer expects <pad>, </s> and <unk> at 0, 1 and 2, as in T5's own vocabulary.
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((char, -3.0) for char in letters)]
    return T5Tokenizer(
        vocab=vocabulary[: config.vocab_size], extra_ids=0, model_max_length=length or _T5_LENGTH, **special
    )


_MAKERS: dict[str, Callable[[int | None, Any, dict[str, str]], PreTrainedTokenizerBase]] = {
    "CLIPTokenizer": _clip,
    "CLIPTokenizerFast": _clip,
    "T5Tokenizer": _t5,
    "T5TokenizerFast": _t5,
}
