"""Tokenizers that need no files: real transformers objects with a vocabulary made up here.

What a stand-in keeps of the published tokenizer: its class, the length it pads and cuts to, and special tokens where
the text encoder looks for them. What it does not keep: the merges. For CLIP and T5 every character is a token, so the
prompt is longer in tokens than it really is; shapes do not notice, because pipelines pad and cut to a fixed length.
With language models some keep the prompt's own length. There every word is a token, as most English words are in their
vocabularies of 10^5 and more.
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
# Where the tokenizers of language models cut text before they merge (tokenization_qwen2.py PRETOKENIZE_REGEX; Llama 3's and
# GLM-4's differ in numbers); a mark such as <|im_start|> is one token to all of them.
_WORDS = (
    r"<\|\w+\|>|(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?(?:(?!<\|)[^\s\p{L}\p{N}])+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORD, _END, _PAD = "<|word|>", "<|endoftext|>", "<|pad|>"
# Marks in the place of pictures, and where a language model's configuration has their ids (Qwen2-VL and after).
_PICTURES = {"<|image_pad|>": "image_token_id", "<|video_pad|>": "video_token_id"}
# Pixels between which Qwen2.5-VL's processor keeps an image (preprocessor_config.json of Qwen/Qwen2.5-VL-7B-Instruct).
_QWEN_PIXELS = {"shortest_edge": 3136, "longest_edge": 12845056}
# ChatML, the form of Qwen's templates; others differ by a few marks.
_CHAT = """{% for message in messages %}{{ "<|im_start|>" + message.role + "\n" }}
{%- if message.content is string %}{{ message.content }}
{%- else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}
{{- "<|im_end|>\n" }}{% endfor %}{% if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}"""
_Maker = Callable[[int | None, Any, dict[str, str]], Any]


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


def _words(class_name: str) -> _Maker:
    """A maker for a language model's tokenizer."""

    def make(length: int | None, config: Any, special: dict[str, str]) -> Any:
        import transformers
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

        text = config.get_text_config()
        end = _first(getattr(text, "eos_token_id", None), text.vocab_size - 1)
        ids = {_END: end, _PAD: _first(getattr(text, "pad_token_id", None), end)}
        ids[_WORD] = next(token for token in range(text.vocab_size) if token not in ids.values())
        ids |= {
            mark: getattr(config, key) for mark, key in _PICTURES.items() if isinstance(getattr(config, key, None), int)
        }
        words = Tokenizer(models.WordLevel(ids, unk_token=_WORD))
        ends = {"unk_token": _WORD, "eos_token": _END, "pad_token": _END if ids[_PAD] == end else _PAD}
        options = {"model_max_length": length} if length else {}
        made = getattr(transformers, class_name)(
            tokenizer_object=words, vocab=ids, chat_template=_CHAT, **{**ends, **options, **special}
        )
        made.backend_tokenizer.model = words.model  # the class has made one of characters
        made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
        made.backend_tokenizer.normalizer = None
        if not class_name.startswith("Qwen"):  # which begins texts with no token of its own
            begin = processors.TemplateProcessing(single=f"{_WORD} $A", special_tokens=[(_WORD, ids[_WORD])])
            made.backend_tokenizer.post_processor = begin
        return made

    return make


def _bert(length: int | None, _: Any, special: dict[str, str]) -> PreTrainedTokenizerBase:
    from transformers import BertTokenizer

    marks = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    vocabulary = [*marks, *ascii_lowercase, *(f"##{char}" for char in ascii_lowercase)]
    ids = {token: place for place, token in enumerate(vocabulary)}
    return BertTokenizer(vocab=ids, **({"model_max_length": length} if length else {}), **special)


def _bytes(length: int | None, _: Any, special: dict[str, str]) -> PreTrainedTokenizerBase:
    from transformers import ByT5Tokenizer  # needs no files: every byte is a token

    return ByT5Tokenizer(**({"model_max_length": length} if length else {}), **special)


def _with_positions(length: int | None, config: Any, special: dict[str, str]) -> Any:
    """ChatGLM's, which hands the positions to the encoder and fills up on the left."""
    from transformers import PreTrainedTokenizerFast

    class ChatGLMTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            tokens = super().__call__(*args, **kwargs)
            tokens["position_ids"] = (tokens["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            return tokens

    plain = _words("PreTrainedTokenizerFast")(length, config, special)
    ends = {"unk_token": _WORD, "eos_token": plain.eos_token, "pad_token": plain.pad_token}
    return ChatGLMTokenizer(tokenizer_object=plain.backend_tokenizer, padding_side="left", **ends)


def _qwen_processor(length: int | None, config: Any, special: dict[str, str]) -> Any:
    """Text and images; the published class wants a processor of videos too, and that wants torchvision."""
    from transformers import Qwen2VLImageProcessorPil, Qwen2VLProcessor

    class Processor(Qwen2VLProcessor):  # type: ignore[misc]
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            super().__init__(image_processor, tokenizer, None, chat_template)

        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    return Processor(Qwen2VLImageProcessorPil(size=_QWEN_PIXELS), _words("Qwen2Tokenizer")(length, config, special))


def _first(ids: int | list[int] | None, otherwise: int) -> int:
    return otherwise if ids is None else ids[0] if isinstance(ids, list) else ids


_LANGUAGE_MODELS = ("GemmaTokenizer", "LlamaTokenizer", "Qwen2Tokenizer")
_MAKERS: dict[str, _Maker] = {
    "CLIPTokenizer": _clip,
    "CLIPTokenizerFast": _clip,
    "T5Tokenizer": _t5,
    "T5TokenizerFast": _t5,
    **{f"{name}{suffix}": _words(name) for name in _LANGUAGE_MODELS for suffix in ("", "Fast")},
    "PreTrainedTokenizerFast": _words("PreTrainedTokenizerFast"),
    "TokenizersBackend": _words("PreTrainedTokenizerFast"),  # what transformers 5 calls a tokenizer without a class
    "BertTokenizer": _bert,
    "ByT5Tokenizer": _bytes,
    "ChatGLMTokenizer": _with_positions,
    "Qwen2VLProcessor": _qwen_processor,
    "PixtralProcessor": _words("PreTrainedTokenizerFast"),  # itself it needs torchvision; for text it only calls this
}
