"""Gradient inversion of a text classifier's LoRA update: in the clear, and from ciphertexts.

A small transformer-like classifier with frozen embeddings and a LoRA adapter. One site takes one
step on one private note; the attacker knows the model, the adapter and a list of notes, and asks
which of them was trained on, by computing the update that each would give.
"""

import numpy as np
import pytest
import torch
from torch import nn

from aggregation import Quantization, Segment, quantize, residues
from aggregation.testing import Federation

NOTES, TOKENS, VOCABULARY, WIDTH, RANK = 40, 12, 500, 64, 8


class Classifier(nn.Module):
    """Embeddings, one attention layer whose query and value carry LoRA, mean pooling, a head."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)

        def frozen(*shape):
            return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

        self.embedding = frozen(VOCABULARY, WIDTH) * WIDTH**0.5
        self.query, self.key, self.value = (frozen(WIDTH, WIDTH) for _ in range(3))
        self.down = [frozen(RANK, WIDTH) for _ in range(2)]
        self.up = nn.ParameterList([nn.Parameter(torch.zeros(WIDTH, RANK)) for _ in range(2)])
        self.head = frozen(2, WIDTH)

    def forward(self, tokens):
        x = self.embedding[tokens]
        query = x @ (self.query + self.up[0] @ self.down[0]).T
        value = x @ (self.value + self.up[1] @ self.down[1]).T
        attention = torch.softmax(query @ (x @ self.key.T).T / WIDTH**0.5, dim=-1)
        return (attention @ value).mean(0) @ self.head.T


def update_of(model, tokens, label):
    """The adapter's change after one step of SGD on one note, as a flat vector."""
    loss = nn.functional.cross_entropy(model(tokens)[None], torch.tensor([label]))
    gradients = torch.autograd.grad(loss, list(model.up))
    return -0.1 * torch.cat([g.reshape(-1) for g in gradients]).numpy()


def best_match(seen, candidates):
    """Index of the candidate update most like what was seen, whatever its label."""
    similarity = [
        abs(float(seen @ c)) / (np.linalg.norm(seen) * np.linalg.norm(c) + 1e-30)
        for c in candidates
    ]
    return int(np.argmax(similarity))


@pytest.fixture(scope="module")
def world():
    torch.manual_seed(11)
    model = Classifier()
    notes = torch.randint(0, VOCABULARY, (NOTES, TOKENS))
    labels = torch.randint(0, 2, (NOTES,)).tolist()
    return [update_of(model, note, label) for note, label in zip(notes, labels, strict=True)]


def test_in_the_clear_the_private_note_is_found(world):
    """Even quantised to eight bits, an update gives its note away."""
    scale = max(float(np.abs(c).max()) for c in world)
    grid = Quantization(bits=8, segments=(Segment(name="lora", size=len(world[0]), range=scale),))
    found = [best_match(quantize(c, grid).astype(float), world) for c in world]
    assert np.mean(np.array(found) == np.arange(NOTES)) > 0.95


@pytest.mark.parametrize("suite", ["ckks-pk", "ckks-collective"])
def test_what_an_aggregator_sees_is_no_better_than_guessing(world, suite):
    scale = max(float(np.abs(c).max()) for c in world)
    size, hits = len(world[0]), 0
    for target in range(12):
        fed = Federation(3, size=size, bits=8, suite=suite)
        fed.quantization = Quantization(
            bits=8, segments=(Segment(name="lora", size=size, range=scale),)
        )
        attempt = fed.start()
        upload = attempt.sites["site-0"].upload(
            attempt.cohort, quantize(world[target], fed.quantization)
        )
        round_ = fed.new_aggregator(attempt).round
        modulus, packing = round_.parameters.modulus, round_.packing
        # The best reading it has: take the residues for the message and unpack them.
        values = residues.to_signed(round_.unpack_chunks([upload.chunks[0]])[0][0], modulus)
        digits = values >> packing.encoding.scale_bits
        read = np.empty((digits.size, packing.encoding.digits))
        for j in range(packing.encoding.digits):
            read[:, j] = digits % packing.encoding.base - packing.encoding.base // 2
            digits = digits // packing.encoding.base
        hits += best_match(read.reshape(-1)[:size], world) == target
    # One in forty by chance; six hits of twelve would happen less than once in a million times.
    assert hits < 6
