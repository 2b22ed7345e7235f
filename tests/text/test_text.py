"""Text: what is read, what is asked, and the relevance of each token, against the same by hand."""

import logging

import pytest
import torch
from small_models import SENTENCES, Bag, bert, byte_pairs, gpt, word_pieces
from torch import nn

import whybox
from whybox import AttentionRollout, InputXGradient, IntegratedGradients, Model, Occlusion
from whybox.core.errors import InputError, ModelError, TargetError
from whybox.text.reading import encode

CLOSE = {"rtol": 1e-4, "atol": 1e-6}
METHODS = [
    "lrp", "input_x_gradient", "integrated_gradients(steps=8)", "occlusion", "attention_rollout", "generic_attention",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pieces(transformers):
    return word_pieces(transformers)


@pytest.fixture
def pairs(transformers):
    return byte_pairs(transformers)


class Slow:
    """A tokenizer without spans in the text."""

    is_fast = False

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, text, **options):
        return self.inner(text, **options)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __len__(self):
        return len(self.inner)


def joined(passage):
    """The text without what the tokenizer has added."""
    parts = zip(passage.gaps, passage.pieces, passage.special, strict=True)
    return "".join(gap + piece for gap, piece, special in parts if not special).strip()


# Reading.


@pytest.mark.parametrize("slow", [False, True])
def test_word_pieces_are_joined_to_words(pieces, slow):
    numbers, (passage,) = encode(Slow(pieces) if slow else pieces, ["an Unbelievable film, not boring!"], None)
    shown = ("[CLS]", *(("[UNK]", "un") if slow else ("an", "Un")), "believ", "able", "film", ",", "not", "bor", "ing")
    assert passage.pieces == (*shown, "!", "[SEP]")
    assert passage.gaps == ("", " ", " ", "", "", " ", " " if slow else "", " ", " ", "", " " if slow else "", " ")
    assert [i for i, special in enumerate(passage.special) if special] == [0, 11]
    assert numbers.shape == (1, 12)
    assert slow or joined(passage) == "an Unbelievable film, not boring!"


TEXTS = [
    *SENTENCES, " two  spaces ", "naïve café — “good” 😀 日本", "line\nafter line", "👩‍👩‍👧 family",
    "tab\tand \u200b zero",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_are_joined_to_the_text(pairs, text):
    numbers, (passage,) = encode(pairs, [text], None)
    assert len(passage) == numbers.shape[1]
    assert joined(passage) == text.strip()
    words, _ = whybox.plot.words(of_lengths(passage))
    assert abs(sum(word.value for word in words) - sum(range(len(passage)))) < 1e-6, "no relevance is lost in drawing"


def of_lengths(passage):
    """An explanation in which token i has the relevance i."""
    count = len(passage)
    return whybox.Explanation(
        relevance=torch.arange(count).float()[None], inputs=torch.ones(1, count, dtype=torch.long),
        method={"name": "gradient"}, target=("x",), scores=torch.ones(1), outputs=torch.ones(1, 2), model="net",
        domains=(whybox.Domain((0.0,), (1.0,)),), passages=(passage,),
    )  # fmt: skip


@pytest.mark.parametrize("slow", [False, True])
def test_marks_of_spaces(pairs, slow):
    _, (passage,) = encode(Slow(pairs) if slow else pairs, ["it is not good"], None)
    assert joined(passage) == "it is not good"


def test_what_cannot_be_read(pieces, pairs):
    for tokenizer, text in ((pieces, ""), (pieces, " \n"), (pairs, ""), (pairs, "  ")):
        with pytest.raises(InputError, match="is empty: it holds no tokens to explain"):
            encode(tokenizer, [text], None)
    with pytest.raises(InputError, match=r"gives token number \d+, but Bag knows 3 tokens only; give the tokenizer"):
        whybox.text.tokens(Bag([0.0] * 3), pieces, "a film")
    with pytest.raises(InputError, match="there is no text to explain; give a string"):
        encode(pieces, [], None)


# Classifiers.


@pytest.mark.parametrize("method", METHODS)
def test_as_by_hand_at_the_embedding(transformers, pieces, method):
    net = bert(transformers, pieces)
    numbers = pieces(SENTENCES[0], return_tensors="pt")["input_ids"]
    by_hand = whybox.method(method)(net, numbers, 1, at="bert.embeddings.word_embeddings").sum(2)
    found = whybox.text.tokens(net, pieces, SENTENCES[0], method, "positive", checks=False)
    torch.testing.assert_close(found.by_position(), by_hand, **CLOSE)
    assert found.target == ("the score of 'positive' (1)",)
    assert [piece for piece, _ in found.tokens()][1:3] == ["a", "wonderful"]
    assert [value for _, value in found.tokens()] == found.by_position()[0].tolist()


@pytest.mark.parametrize("how", ["eager", "sdpa"])
@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_nothing(transformers, pieces, method, how):
    net = bert(transformers, pieces)
    net.set_attn_implementation(how)
    texts = SENTENCES[::2]
    checks = method != "lrp"  # whose trace takes long
    together = whybox.text.tokens(net, pieces, texts, method, 0, checks=checks)
    assert together.inputs.shape == together.by_position().shape
    for i, sentence in enumerate(texts):
        alone = whybox.text.tokens(net, pieces, sentence, method, 0, checks=checks)
        count = alone.inputs.shape[1]
        torch.testing.assert_close(together.by_position()[i, :count], alone.by_position()[0], **CLOSE)
        assert float(together.by_position()[i, count:].abs().sum()) < 1e-6
        assert (together.inputs[i, count:] == -1).all()
        torch.testing.assert_close(together.outputs[i], alone.outputs[0], **CLOSE)
        for one, both in zip(alone.checks, together.checks, strict=True):
            torch.testing.assert_close(both.values[i], one.values[0], rtol=1e-2, atol=1e-2, equal_nan=True)


WEIGHTS = {"good": 2.0, "wonderful": 3.0, "dull": -3.0, "not": -1.0}


def test_known_words(pieces):
    """Every method finds the weights of a bag of words; hidden specials have none of their own."""
    net = Bag([WEIGHTS.get(word, 0.0) for word in pieces.convert_ids_to_tokens(range(len(pieces)))])
    texts = ["it is not good", "a dull film", "a wonderful film, full of warmth"]
    for method in (InputXGradient(), IntegratedGradients(), Occlusion(), "lrp"):
        found = whybox.text.tokens(net, pieces, texts, method, 1)
        for i in range(len(texts)):
            told = found.tokens(i)
            for piece, value in told:
                assert value == pytest.approx(WEIGHTS.get(piece, 0.0) / len(told), abs=1e-4)
    assert [p.label for p in whybox.text.tokens(net, pieces, texts[1], "gradient").predictions()] == [
        "class 0",
        "class 1",
    ]


def test_classes_by_name(transformers, pieces):
    net = bert(transformers, pieces)
    found = whybox.text.tokens(net, pieces, SENTENCES[:2], "gradient", ["positive", "Negative"])
    assert found.target == ("the score of 'positive' (1)", "the score of 'negative' (0)")
    with pytest.raises(TargetError, match="there is no class 'positiv'; near are 'positive'"):
        whybox.text.tokens(net, pieces, SENTENCES[0], "gradient", "positiv")
    own = Model(net, labels=("bad", "fine"), name="mine")
    assert whybox.text.tokens(own, pieces, SENTENCES[0], "gradient", "fine").target == ("the score of 'fine' (1)",)


def test_what_is_too_long_is_left_out_and_said(transformers, pieces, caplog):
    net = bert(transformers, pieces, max_position_embeddings=6)
    with caplog.at_level(logging.WARNING):
        found = whybox.text.tokens(net, pieces, [SENTENCES[0], "it is good"], "gradient")
    assert "reads 6 tokens: the ends of text(s) [0] are left out" in caplog.text
    assert [passage.left_out for passage in found.passages] == [8, 0]
    assert found.passages[0].pieces == ("[CLS]", "a", "wonderful", "film", ",", "[SEP]")
    assert "… (8 more tokens, which the model has not read)" in str(found)
    assert "and 8 more tokens" in found._repr_html_()


def test_a_model_that_counts_positions_behind_its_padding(transformers, pieces):
    config = transformers.RobertaConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, pad_token_id=1,
    )  # fmt: skip
    net = transformers.RobertaForSequenceClassification(config).eval()
    assert len(whybox.text.tokens(net, pieces, SENTENCES[0], "gradient").passages[0]) == 6


def test_a_model_without_a_mask(pieces, caplog):
    """It may count what shorter texts are filled up with, so that is said."""
    net = nn.Sequential(nn.Embedding(len(pieces), 4), nn.Flatten(1, 1), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten())
    whybox.text.tokens(net, pieces, ["a good film", "a dull film"], "gradient", checks=False)
    assert not caplog.text
    whybox.text.tokens(net, pieces, ["a good film", "a film"], "gradient", checks=False)
    assert "takes no attention_mask: shorter texts are filled up with token 0" in caplog.text


# Language models.


def test_the_next_token_of_each_text(transformers, pairs):
    net = gpt(transformers, pairs)
    texts = ["the acting is", "it is not good at"]
    found = whybox.text.tokens(net, pairs, texts, "input_x_gradient", " good", checks=False)
    good = pairs.encode(" good")[0]
    for i, text in enumerate(texts):
        numbers = pairs(text, return_tensors="pt")["input_ids"]
        embedded = net.transformer.wte(numbers).detach().requires_grad_()
        logit = net(inputs_embeds=embedded).logits[0, -1, good]
        wanted = (torch.autograd.grad(logit, embedded)[0] * embedded).sum(2)[0].detach()
        torch.testing.assert_close(found.by_position()[i, : len(wanted)], wanted, **CLOSE)
        assert float(found.scores[i]) == pytest.approx(float(logit.detach()), rel=1e-4)
    assert found.target == (f"the score of ' good' ({good})",) * 2
    assert found.predictions(0)[0].label == pairs.decode([int(found.outputs[0].argmax())])
    for spelled in ("good", good, [" good", good]):
        assert whybox.text.tokens(net, pairs, texts, "gradient", spelled, checks=False).target == found.target


@pytest.mark.parametrize("position", [0, 2, -2])
def test_a_given_position(transformers, pairs, position):
    net = gpt(transformers, pairs)
    numbers = pairs("it is not good", return_tensors="pt")["input_ids"]
    found = whybox.text.tokens(net, pairs, "it is not good", "lrp", 7, position=position, checks=False)
    torch.testing.assert_close(found.outputs[0], net(numbers).logits[0, position].detach(), **CLOSE)
    last = range(numbers.shape[1])[position]
    assert not found.by_position()[0, last + 1 :].any(), "what comes later cannot count"
    assert bool(found.by_position()[0, : last + 1].any())
    with pytest.raises(InputError, match="position 9 is none of a text of"):
        whybox.text.tokens(net, pairs, "it is not good", "lrp", 7, position=9)


def test_the_word_behind_a_mask(transformers, pieces):
    net = bert(transformers, pieces, "BertForMaskedLM")
    found = whybox.text.tokens(net, pieces, ["it is [MASK] at all", "a [MASK] film"], "gradient", "good", checks=False)
    numbers = pieces("a [MASK] film", return_tensors="pt")["input_ids"]
    torch.testing.assert_close(found.outputs[1], net(numbers).logits[0, 2].detach(), **CLOSE)
    assert found.labels[4:6] == ("[MASK]", "a")


def test_rollout_of_a_language_model_reads_its_last_token(transformers, pairs):
    found = whybox.text.tokens(
        gpt(transformers, pairs), pairs, ["it is", "not good at"], AttentionRollout(), checks=False
    )
    lengths = [len(passage) for passage in found.passages]
    assert found.details["read"].argmax(1).tolist() == [length - 1 for length in lengths]


# What is refused.


def test_models_that_cannot_be_asked(transformers, pieces, pairs):
    config = transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, num_heads=2, num_layers=1, d_ff=16)
    with pytest.raises(ModelError, match="is an encoder–decoder model"):
        whybox.text.tokens(transformers.T5ForSequenceClassification(config), pieces, "good")
    with pytest.raises(InputError, match=r"give the model's tokenizer too: transformers\.AutoTokenizer"):
        whybox.text.tokens(bert(transformers, pieces), None, "good")

    class Numbers(nn.Module):
        def forward(self, numbers):
            return numbers.float()[:, :2] * 1

    with pytest.raises(ModelError, match=r"no layer that makes embeddings of token numbers, a torch\.nn\.Embedding"):
        whybox.text.tokens(Numbers(), pieces, "good")
    classifier = gpt(transformers, pairs, "GPT2ForSequenceClassification", num_labels=2)
    with pytest.raises(InputError, match=r"set model\.config\.pad_token_id = tokenizer\.pad_token_id"):
        whybox.text.tokens(classifier, pairs, ["good", "not good"], "gradient")
    one = whybox.text.tokens(classifier, pairs, "not good", "integrated_gradients(steps=4)", 1)
    classifier.config.pad_token_id = 1
    several = whybox.text.tokens(classifier, pairs, ["not good", "it is not good"], "integrated_gradients(steps=4)", 1)
    torch.testing.assert_close(several.by_position()[0, : one.inputs.shape[1]], one.by_position()[0], **CLOSE)
    with pytest.raises(InputError, match=r"not one of texts; whybox\.text\.tokens"):
        whybox.explain(nn.Linear(3, 2), torch.ones(1, 3), "gradient").tokens()


def test_the_model_comes_back_as_it_was(transformers, pieces):
    net = bert(transformers, pieces).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    whybox.text.tokens(net, pieces, SENTENCES[0], "lrp")
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
