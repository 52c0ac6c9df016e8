"""A private step of a decoder of a billion parameters, and the memory that it takes.

The model has the shape of a Llama and random weights: what a step costs depends on shapes. Its
weights are written as bfloat16 safetensors, a file at a time, to a temporary folder. The step runs
in a process that does nothing else, from finding the model to the noised update:

    python -m fmfl_secure.bench.large FOLDER TOKENS bfloat16 checkpointing

`fmfl-secure bench large` (`cli.bench`) calls `measure_large`, which writes the model, starts that
process, and deletes the model; in it `build_step` gets ready and `measure_step` takes the step.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fmfl_secure.bench._memory import peak_mib
from fmfl_secure.bench._paired import one_thread
from fmfl_secure.models import AdapterSpec, find_base_model
from fmfl_secure.models.batches import IGNORED, TextBatch
from fmfl_secure.models.block_weights import BLOCK, BLOCK_BYTES, BlockKind, write_blocks
from fmfl_secure.models.computation import Computation
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.settings.tasks import CausalLMSection
from fmfl_secure.settings.types import WeightType
from fmfl_secure.tasks.base import one_unit_each
from fmfl_secure.tasks.causal_lm import CausalLM
from privacy import PrivacyPlan
from privacy.mechanism.training import PrivateTrainer

_RECORDS = 4


def shape(layers: int) -> LlamaConfig:
    """Width 2048 and an output layer of its own; 16 layers make 1.10 billion parameters."""
    return LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=32_000,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )


def measure_large(
    *,
    layers: int = 16,
    tokens: int = 32,
    half: bool = True,
    checkpointing: bool = True,
    blocks: BlockKind | None = None,
) -> dict[str, Any]:
    """Write a model, train one private step of it in a process of its own, and delete it.

    Args:
        layers: Of the model; 16 make 1.10 billion parameters.
        tokens: Of a record.
        half: Keep weights in bfloat16, as they are in the files; otherwise in float32.
        checkpointing: Compute activations twice.
        blocks: Keep matrices in blocks of this kind, in the files too, whatever `half` says.

    Returns:
        Parameters, the files and their size, peak memory in MiB, and seconds.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_llama(shape(layers), folder, blocks=blocks)
        dtype: WeightType = "blocks" if blocks else "bfloat16" if half else "float32"
        done = subprocess.run(  # noqa: S603 - ours
            [
                *(sys.executable, "-m", __name__, name, str(tokens), dtype),
                "checkpointing" if checkpointing else "",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"dtype": blocks or dtype, "checkpointing": checkpointing, **written, **measured}


def _write_tokenizer(size: int, folder: Path) -> None:
    """A word for every row of the embeddings; a base model without a tokenizer is refused."""
    words = {"[UNK]": 0, "[PAD]": 1} | {f"w{number}": number for number in range(2, size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - a word, no secret
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
    ).save_pretrained(folder)


def write_llama(
    config: LlamaConfig,
    folder: Path,
    *,
    shard_bytes: int = 1 << 29,
    blocks: BlockKind | None = None,
) -> dict[str, Any]:
    """Random weights in several bfloat16 files, of which one at a time is in memory.

    Args:
        config: The model's shape.
        folder: Where; made if need be.
        shard_bytes: Where a file ends and the next begins.
        blocks: Write matrices in blocks of this kind, of random whole numbers, instead.

    Returns:
        Parameters, the files and their size.
    """
    with torch.device("meta"):
        state = LlamaForCausalLM(config).state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    _write_tokenizer(config.vocab_size, folder)
    if blocks is not None:
        write_blocks(_random_blocks(state, blocks), folder)
        found = list(folder.glob("*.safetensors"))
        return {
            "parameters": sum(shape.numel() for shape in state.values()),
            "weights_mib": sum(path.stat().st_size for path in found) / 2**20,
            "files": len(found),
        }
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    size, total = 0, 0
    for name, shape in state.items():
        tensor = torch.empty(shape.shape, dtype=torch.bfloat16)
        shard[name] = tensor.fill_(1.0) if tensor.dim() == 1 else tensor.normal_(std=0.02)
        size += tensor.numel() * 2
        total += tensor.numel()
        if size >= shard_bytes or name == list(state)[-1]:
            file = f"model-{len(set(places.values())) + 1:05}.safetensors"
            safetensors.torch.save_file(shard, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shard, size = {}, 0
    index = {"metadata": {"total_size": total * 2}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    files = len(set(places.values()))
    return {"parameters": total, "weights_mib": total * 2 / 2**20, "files": files}


def _random_blocks(
    state: Mapping[str, torch.Tensor], kind: BlockKind
) -> Iterator[tuple[str, torch.Tensor, BlockKind | None]]:
    """Norms of ones, and matrices of random whole numbers around zero, on a trained one's scale."""
    scale = torch.tensor([0.02 / (64 if kind == "q8_0" else 5)], dtype=torch.float16)
    for name, shape in state.items():
        if shape.dim() == 1:
            yield name, torch.ones(shape.shape), None
            continue
        rows, columns = shape.shape
        size = BLOCK_BYTES[kind]
        packed = torch.randint(256, (rows, columns // BLOCK, size), dtype=torch.uint8)
        packed[..., :2] = scale.view(torch.uint8)
        if kind == "q4_1":
            packed[..., 2:4] = (-7.5 * scale).view(torch.uint8)
        yield name, packed.reshape(rows, -1), kind


@dataclass(frozen=True, slots=True)
class Step:
    """A private LoRA step that is ready to be taken.

    Attributes:
        task: On the model in a folder.
        model: With its adapter.
        trainer: Of four random records.
    """

    task: CausalLM
    model: torch.nn.Module
    trainer: PrivateTrainer


def build_step(folder: Path, tokens: int, computation: Computation) -> Step:
    """Get ready for `measure_step`: LoRA on queries and values of every layer."""
    task = CausalLM(
        base=find_base_model(str(folder)),
        adapter=AdapterSpec(
            kind="lora", rank=8, alpha=16, last_layers=0, target_modules=("q_proj", "v_proj")
        ),
        settings=CausalLMSection(),
        max_length=tokens,
        cache_bytes=0,
        computation=computation,
    )
    model = task.build_model(seed=1)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return Step(task, model, _trainer(task, model, trainable, tokens))


def measure_step(folder: Path, tokens: int, computation: Computation) -> dict[str, Any]:
    """One private LoRA step on the model in a folder; peak memory is of this whole process."""
    with one_thread():
        start = time.perf_counter(), time.process_time()
        step = build_step(folder, tokens, computation)
        loaded = time.perf_counter(), time.process_time(), peak_mib()
        step.trainer.train_round()
    trained = [p.numel() for p in step.model.parameters() if p.requires_grad]
    return {
        "trainable_parameters": sum(trained),
        "records": _RECORDS,
        "tokens": tokens,
        "peak_mib": peak_mib(),
        "peak_loaded_mib": loaded[2],
        "load_cpu_s": loaded[1] - start[1],
        "step_cpu_s": time.process_time() - loaded[1],
        "wall_s": time.perf_counter() - start[0],
    }


def _trainer(
    task: CausalLM, model: torch.nn.Module, trainable: list[torch.nn.Parameter], tokens: int
) -> PrivateTrainer:
    """Every record in one step, two at a time in memory."""
    texts = torch.randint(int(task.base.config["vocab_size"]), (_RECORDS, tokens))
    labels = texts.clone()
    labels[:, : tokens // 2] = IGNORED  # the first half is the prompt

    def collate(records: NDArray[np.int64]) -> TextBatch:
        chosen = torch.from_numpy(records)
        return TextBatch(
            input_ids=texts[chosen],
            attention_mask=torch.ones(len(records), tokens, dtype=torch.int64),
            labels=labels[chosen],
            records=records.tolist(),
            cache=RecordCache(0),
        ).to(task.computation.device)

    plan = PrivacyPlan(
        unit="record",
        population=_RECORDS,
        sample_rate=1.0,
        max_grad_norm=1.0,
        noise_multiplier=1.0,
        steps_per_round=1,
        rounds=1,
        repeats=0,
        delta=1e-5,
    )
    return PrivateTrainer(
        model,
        plan=plan,
        loss=task.per_record_loss,
        collate=collate,
        units=one_unit_each(_RECORDS),
        optimizer=torch.optim.Adam(trainable),
        physical_batch_size=_RECORDS // 2,
    )


if __name__ == "__main__":
    chosen = Computation(
        dtype=msgspec.convert(sys.argv[3], WeightType),
        checkpointing=sys.argv[4] == "checkpointing",
    )
    measured = measure_step(Path(sys.argv[1]), int(sys.argv[2]), chosen)
    sys.stdout.write(json.dumps(measured) + "\n")
