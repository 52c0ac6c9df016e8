"""The arms of a decoder's step: the same work, each as it says, and a floor that counts it."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from fmfl_secure.bench.decoder import TARGETS, Arms, measure_decoder

TINY = LlamaConfig(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    tie_word_embeddings=True,
)
STEPS = ("hugging_face", "plain", "private", "opacus_hooks", "opacus_ghost")


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes a figure fair takes a second a step in a long session, and no figure is read."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def arms(response: int = 3) -> Arms:
    return Arms(TINY, TARGETS["query-value"], records=3, tokens=8, response=response)


@pytest.mark.parametrize("name", STEPS)
def test_an_arm_trains_every_factor_and_leaves_nothing_behind(name: str) -> None:
    own = arms()
    before = [parameter.detach().clone() for parameter in own.trainable]
    for _ in range(2):  # a factor A moves once B is no longer zero
        assert getattr(own, name)() >= 0.0
    assert not any(torch.equal(*pair) for pair in zip(before, own.trainable, strict=True))
    assert all(parameter.grad is None for parameter in own.trainable)
    assert not any(module._forward_hooks for module in own.model.modules())


def test_without_noise_all_arms_take_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms are below the bound, so that nothing is clipped, and a mean is a mean."""
    found: dict[str, list[torch.Tensor]] = {}
    monkeypatch.setattr(
        "privacy.mechanism.noise.GaussianSource.normal",
        lambda _, size: torch.zeros(size, dtype=torch.float64).numpy(),
    )
    for module in ("optimizer", "optimizer_fast_gradient_clipping"):
        monkeypatch.setattr(
            f"opacus.optimizers.{module}._generate_noise",
            lambda std, reference, **_: torch.zeros_like(reference),  # noqa: ARG005
        )
    for name in STEPS:
        own = arms()
        for optimizer in own._optimizers.values():
            optimizer.register_step_pre_hook(
                lambda *_, own=own, name=name: found.update(
                    {name: [p.grad.detach().clone() for p in own.trainable]}
                )
            )
        getattr(own, name)()
    for name in STEPS[1:]:
        for one, other in zip(found[STEPS[0]], found[name], strict=True):
            torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-4)
    assert max(float(each.abs().max()) for each in found["private"]) > 1e-4


def test_the_floor_counts_every_product_and_the_output_layer_where_a_response_is() -> None:
    counted = arms().count()
    width, inner, vocabulary, rank = 16, 32, 64, 8
    rows = 3 * 8
    queries, values = width * width, width * width // 2
    weights = queries + 2 * values + width * width + 3 * width * inner
    forward = 2 * rows * weights * 2
    assert counted > 1.9 * forward  # there, and back but for the first layer's inputs
    adapters = 2 * rows * (2 * width * rank + rank * (width + width // 2)) * 2
    output = 2 * 3 * 3 * width * vocabulary
    assert counted < 2 * forward + 3 * adapters + 2 * output + 2 * 3 * 8 * 8 * 2 * width * 2 * 4
    more = arms(response=4).count() - counted
    assert more == 2 * (2 * 3 * width * vocabulary)  # of three records, one position each


def test_every_figure_is_beside_another_arm_of_its_repeat() -> None:
    found = measure_decoder(records=2, tokens=6, response=2, repeats=1, config=TINY)
    assert set(found["cpu_s"]) == {"floor", *(name.replace("_", "-") for name in STEPS)}
    assert set(found["over_hugging_face"]) == set(found["cpu_s"]) - {"hugging-face", "floor"}
    assert set(found["over_floor"]) == set(found["cpu_s"]) - {"floor"}
    assert found["model"] == "another shape"
