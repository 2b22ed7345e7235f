"""Tokenizers and models of transformers, made in a moment."""

from types import ModuleType
from typing import Any

import torch
from torch import nn

SENTENCES = [
    "a wonderful film, full of warmth and unbelievable acting",
    "a dull and boring film without any charm",
    "it is not good at all",
    "the acting is good, not boring",
]


def word_pieces(transformers: ModuleType) -> Any:
    """As of BERT: lower case, ## goes on with a word, [CLS] and [SEP] around the text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = sorted(
        {word.strip(",") for sentence in SENTENCES for word in sentence.split()} - {"unbelievable", "boring"}
    )
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, ",", "!", "un", "##believ", "##able", "bor", "##ing"]
    own = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    own.normalizer = normalizers.Lowercase()
    own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    own.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", names.index("[CLS]")), ("[SEP]", names.index("[SEP]"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=own, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


def byte_pairs(transformers: ModuleType) -> Any:
    """As of GPT-2: bytes, Ġ for a space before, no padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    own.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    own.train_from_iterator(SENTENCES, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|end|>")


def bert(transformers: ModuleType, tokenizer: Any, cls: str = "BertForSequenceClassification", **fields: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        pad_token_id=0, id2label={0: "negative", 1: "positive"}, initializer_range=0.5, **fields,
    )  # fmt: skip
    return getattr(transformers, cls)(config).eval()


def gpt(transformers: ModuleType, tokenizer: Any, cls: str = "GPT2LMHeadModel", **fields: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        initializer_range=0.5, **fields,
    )  # fmt: skip
    return getattr(transformers, cls)(config).eval()


class Bag(nn.Module):
    """The mean of a weight for each word, for class 1, and its negative for class 0: known word by word."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(torch.tensor(weights)[:, None])

    def forward(self, numbers: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        real = attention_mask.float()
        score = (self.embed(numbers)[..., 0] * real).sum(1) / real.sum(1)
        return torch.stack([-score, score], 1)
