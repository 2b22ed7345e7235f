"""The sentences, the two nets that read them, and their training."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from experiments.common.data import data
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

import whybox

PADDING, UNKNOWN = 0, 1
LEAST = 3  # how often a word occurs that has a number of its own
EMBEDDED = 50
EPOCHS = {"lstm": 7, "cnn": 8}
FOLDER = Path(__file__).parent


def read(split: str) -> tuple[list[list[str]], Tensor]:
    """The words of each sentence, and 1 where it is favourable."""
    lines = (data() / f"sst/stsa.binary.{split}").read_text(encoding="utf-8").splitlines()
    return [line.split()[1:] for line in lines], torch.tensor([int(line[0]) for line in lines])


class Vocabulary:
    """Numbers of the words that the sentences for training hold often enough; the more frequent, the lower."""

    def __init__(self) -> None:
        counts = Counter(word for words in read("train")[0] for word in words)
        kept = sorted(
            (word for word, count in counts.items() if count >= LEAST), key=lambda word: (-counts[word], word)
        )
        self.numbers = {word: number for number, word in enumerate(kept, start=UNKNOWN + 1)}

    def __len__(self) -> int:
        return len(self.numbers) + UNKNOWN + 1

    def encode(self, words: list[str]) -> Tensor:
        """Their numbers."""
        return torch.tensor([self.numbers.get(word, UNKNOWN) for word in words])


class Reader(nn.Module):
    """Reads both ways with an LSTM; the class is told from the states at both ends."""

    def __init__(self, words: int, size: int = 60) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, EMBEDDED, padding_idx=PADDING)
        self.drop = nn.Dropout(0.5)
        self.reader = nn.LSTM(EMBEDDED, size, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * size, 2)

    def forward(self, words: Tensor) -> Tensor:
        """Logits (n, 2) for numbers of words (n, t), padded at the end."""
        lengths = (words != PADDING).sum(1).cpu()
        read = pack_padded_sequence(self.drop(self.embedding(words)), lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.reader(read)
        return self.out(self.drop(last.transpose(0, 1).flatten(1)))


class TextCNN(nn.Module):
    """Convolutions over 3, 4 and 5 words, the maximum over time of each feature (Kim 2014)."""

    def __init__(self, words: int, size: int = 40) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, EMBEDDED, padding_idx=PADDING)
        self.drop = nn.Dropout(0.5)
        self.windows = nn.ModuleList(nn.Conv1d(EMBEDDED, size, width, padding=width - 1) for width in (3, 4, 5))
        self.out = nn.Linear(3 * size, 2)

    def forward(self, words: Tensor) -> Tensor:
        """As above."""
        x = self.drop(self.embedding(words)).transpose(1, 2)
        found = [window(x).relu().amax(2) for window in self.windows]
        return self.out(self.drop(torch.cat(found, 1)))


NETS = {"lstm": Reader, "cnn": TextCNN}


def load(name: str, vocabulary: Vocabulary) -> whybox.Model:
    """The net as it was trained."""
    net = NETS[name](len(vocabulary)).eval()
    net.load_state_dict({key: value.float() for key, value in load_file(FOLDER / f"{name}.safetensors").items()})
    return whybox.Model(net, chunk=256)


def batches(sentences: list[Tensor], labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All sentences in random order, those of one batch of about the same length."""
    noise = torch.rand(len(sentences)) * 4
    order = (torch.tensor([len(one) for one in sentences]) + noise).argsort()
    groups = list(order.split(size))
    for place in torch.randperm(len(groups)).tolist():
        rows = groups[place]
        yield pad_sequence([sentences[row] for row in rows], batch_first=True), labels[rows]


def accuracy(net: Callable[[Tensor], Tensor], sentences: list[Tensor], labels: Tensor) -> float:
    """The share of sentences that the net gets right."""
    right = 0
    with torch.no_grad():
        for words, wanted in batches(sentences, labels, 100):
            right += int((net(words).argmax(1) == wanted).sum())
    return right / len(labels)


def train(name: str, vocabulary: Vocabulary) -> None:
    """Train a net, keep it in half precision as it is best on the sentences for development, and say how good it is."""
    torch.manual_seed(0)
    splits = {}
    for split in ("train", "dev", "test"):
        words, labels = read(split)
        splits[split] = ([vocabulary.encode(one) for one in words], labels)
    net = NETS[name](len(vocabulary))
    nn.init.normal_(net.embedding.weight, std=0.1)
    adam = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.02)
    best = 0.0
    for epoch in range(EPOCHS[name]):
        net.train()
        for words, labels in batches(*splits["train"], 50):
            hidden = (torch.rand(words.shape) < 0.1) & (words != PADDING)  # so that an unknown word tells nothing
            loss = nn.functional.cross_entropy(net(words.masked_fill(hidden, UNKNOWN)), labels, label_smoothing=0.05)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            adam.step()
        found = accuracy(net.eval(), *splits["dev"])
        print(f"{name}, epoch {epoch + 1}: loss {loss.item():.3f}, right on dev {found:.1%}", flush=True)
        if found > best:
            best = found
            save_file({key: value.half() for key, value in net.state_dict().items()}, FOLDER / f"{name}.safetensors")
    print(f"{name}: right on test {accuracy(load(name, vocabulary), *splits['test']):.1%}", flush=True)
