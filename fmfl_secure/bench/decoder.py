"""A private step of SmolLM2-135M beside other ways to take one, and beside its arithmetic.

All arms train one model, of that shape and with random weights, on the same records in one physical
batch: LoRA in every layer, an Adam of each arm's own, CPU time on one thread. Their order turns
from one repeat to the next, and a ratio is of two arms of one repeat.

    hugging-face   what a person writes without privacy: the model's own loss, backward, step
    plain          the same with the product's loss, whose output layer runs where a response is
    private        `ClippedSum`, which the product trains with; the product's loss
    opacus-hooks   Opacus's hooks and optimizer; the product's loss
    opacus-ghost   Opacus's ghost clipping and its optimizer; the product's loss
    floor          the multiplications of `plain`, counted, at the rate of one large product that is
                   measured in each repeat

`fmfl-secure bench decoder` (`cli.bench`) calls `measure_decoder`.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import peft
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleHooksFastGradientClipping,
)
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from fmfl_secure.bench._paired import cpu_seconds, one_thread, spread
from fmfl_secure.bench.floors import median_cpu_seconds
from fmfl_secure.models.batches import IGNORED, TextBatch
from fmfl_secure.models.language import LanguageModel
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.tasks.causal_lm import response_losses
from privacy.mechanism.training import ClippedSum

_WARM_UP: Final = 1
_NORM: Final = 1.0  # C; the noise's standard deviation is as large

TARGETS: Final = {
    "query-value": ["q_proj", "v_proj"],
    "all-linear": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
"""Where adapters are, in each layer."""

SMOLLM2: Final = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rope_theta=100_000.0,
    tie_word_embeddings=True,
)
"""The shape of SmolLM2-135M."""


def measure_decoder(
    *,
    targets: str = "query-value",
    records: int = 8,
    tokens: int = 64,
    response: int = 8,
    repeats: int = 5,
    config: LlamaConfig = SMOLLM2,
) -> dict[str, Any]:
    """Measure all arms, turn by turn.

    Args:
        targets: A name in `TARGETS`.
        records: Of a step.
        tokens: Of a record.
        response: Of these, how many at its end are learned.
        repeats: Of every arm, after one that is not counted.
        config: The model's shape.

    Returns:
        CPU seconds (medians) and ratios (medians with quartiles) over `hugging-face`, `plain` and
        the floor.
    """
    with one_thread():
        arms = Arms(config, TARGETS[targets], records=records, tokens=tokens, response=response)
        steps: dict[str, Callable[[], float]] = {
            "hugging-face": arms.hugging_face,
            "plain": arms.plain,
            "private": arms.private,
            "opacus-hooks": arms.opacus_hooks,
            "opacus-ghost": arms.opacus_ghost,
        }
        flops = arms.count()
        names = list(steps)
        found: list[dict[str, float]] = []
        for number in range(_WARM_UP + repeats):
            turn = number % len(names)
            spent = {name: steps[name]() for name in names[turn:] + names[:turn]}
            found.append(spent | {"floor": flops / multiplication_rate(config, records * tokens)})
        found = found[_WARM_UP:]
    return {
        "model": "smollm2-135m's shape, random weights" if config is SMOLLM2 else "another shape",
        "adapter": f"lora of rank {arms.rank} on {targets}, every layer",
        "trainable_parameters": sum(parameter.numel() for parameter in arms.trainable),
        "records": records,
        "tokens": tokens,
        "response_tokens": response,
        "repeats": repeats,
        "floor_gflop": flops / 1e9,
        "cpu_s": {
            name: statistics.median(each[name] for each in found) for name in [*names, "floor"]
        },
        **{
            f"over_{beside}".replace("-", "_"): {
                name: spread([each[name] / each[beside] for each in found])
                for name in names
                if name != beside
            }
            for beside in ("hugging-face", "plain", "floor")
        },
    }


class Arms:
    """One model and records, and a step of each arm, which returns its CPU seconds.

    Args:
        config: The model's shape.
        targets: Modules with an adapter.
        records: Of a step.
        tokens: Of a record.
        response: Tokens at its end that are learned.
    """

    rank = 8

    def __init__(
        self, config: LlamaConfig, targets: list[str], *, records: int, tokens: int, response: int
    ) -> None:
        lora = peft.LoraConfig(
            r=self.rank, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            torch.manual_seed(1)
            self.encoder: torch.nn.Module = peft.get_peft_model(LlamaForCausalLM(config), lora)
            self._texts = torch.randint(config.vocab_size, (records, tokens))
        self.model = LanguageModel(self.encoder, {}).train()
        self.trainable = [p for p in self.model.parameters() if p.requires_grad]
        self._labels = self._texts.clone()
        self._labels[:, : tokens - response] = IGNORED
        self._everyone = np.arange(records)
        self._optimizers = {name: torch.optim.Adam(self.trainable) for name in "abcde"}
        self._clipped = ClippedSum(
            self.model,
            loss=response_losses,
            collate=self._collate,
            optimizer=self._optimizers["c"],
            max_grad_norm=_NORM,
            noise_stddev=_NORM,
            expected_batch_size=float(records),
            physical_batch_size=records,
        )

    def _collate(self, records: NDArray[np.int64]) -> TextBatch:
        chosen = torch.from_numpy(records)
        return TextBatch(
            input_ids=self._texts[chosen],
            attention_mask=torch.ones_like(self._texts[chosen]),
            labels=self._labels[chosen],
            records=records.tolist(),
            cache=RecordCache(0),
        )

    def hugging_face(self) -> float:
        """As in transformers' own examples."""
        optimizer = self._optimizers["a"]

        def step() -> None:
            batch = self._collate(self._everyone)
            loss = self.encoder(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
            ).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return cpu_seconds(step)

    def plain(self) -> float:
        """The product's loss, without privacy."""
        return cpu_seconds(lambda: self._plain(self._optimizers["b"]))

    def _plain(self, optimizer: torch.optim.Optimizer) -> None:
        response_losses(self.model, self._collate(self._everyone)).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def private(self) -> float:
        """Times the product's private step, in seconds."""
        units = [np.array([record]) for record in self._everyone]

        def step() -> None:
            self._clipped.accumulate(units)
            self._clipped.step()

        with self._clipped:
            return cpu_seconds(step)

    def opacus_hooks(self) -> float:
        """Opacus's way with gradients by record."""
        hooks = GradSampleHooks(self.model, strict=True)
        optimizer = self._noising(DPOptimizer, "d")

        def step() -> None:
            response_losses(self.model, self._collate(self._everyone)).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return _hooked(hooks, step)

    def opacus_ghost(self) -> float:
        """Opacus's way with norms by record, and a second backward pass."""
        hooks = GradSampleHooksFastGradientClipping(self.model, strict=True, max_grad_norm=_NORM)
        optimizer = self._noising(DPOptimizerFastGradientClipping, "e")

        def step() -> None:
            losses = response_losses(self.model, self._collate(self._everyone))
            DPTensorFastGradientClipping(hooks, optimizer, losses).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return _hooked(hooks, step)

    def _noising(self, kind: Any, name: str) -> Any:
        return kind(
            self._optimizers[name],
            noise_multiplier=1.0,
            max_grad_norm=_NORM,
            expected_batch_size=len(self._everyone),
        )

    def count(self) -> int:
        """Floating-point operations of the matrix products in a step of `plain`."""
        with FlopCounterMode(display=False) as counter:
            self._plain(torch.optim.SGD(self.trainable, lr=0.0))
        return int(counter.get_total_flops())


def _hooked(hooks: GradSampleHooks, step: Callable[[], None]) -> float:
    """A step's CPU seconds, after which Opacus's hooks are off the model."""
    try:
        with warnings.catch_warnings():
            # The first layer's inputs, a text's embeddings, have no gradient.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            return cpu_seconds(step)
    finally:
        hooks.cleanup()


def multiplication_rate(config: LlamaConfig, rows: int) -> float:
    """Operations a second of the model's largest product in a layer, by CPU time."""
    left = torch.ones(rows, config.hidden_size)
    right = torch.ones(config.hidden_size, config.intermediate_size)
    out = torch.empty(rows, config.intermediate_size)
    spent = median_cpu_seconds(lambda: torch.mm(left, right, out=out))
    return 2.0 * rows * right.numel() / spent
