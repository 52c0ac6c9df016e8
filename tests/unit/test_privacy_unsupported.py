"""What the gate refuses by name: real modules of transformers and PEFT, and what to use instead.

The second half switches the names off: what is refused by name is, for all but one kind, refused
by measurement too, so that the list spares nobody a broken bound.
"""

import re

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from privacy import AdmissionError
from privacy.mechanism import admission, unsupported
from privacy.mechanism.admission import check_admission

torch.set_num_threads(1)

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    # torch's reentrant checkpointing of a step whose inputs need no gradient
    "ignore:None of the inputs have requires_grad=True:UserWarning",
)

RECORDS, VOCABULARY, WIDTH = 6, 50, 16
generator = torch.Generator().manual_seed(0)
TOKENS = [torch.randint(1, VOCABULARY, (n,), generator=generator) for n in (1, 2, 3, 5, 8, 20)]
IMAGES = torch.randn(RECORDS, 3, 16, 16, generator=generator)
LABELS = torch.arange(RECORDS) % 2
TEXT = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 1}
SMALL = {"num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 24}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def texts(records):
    ids = nn.utils.rnn.pad_sequence([TOKENS[i] for i in records], batch_first=True)
    lengths = torch.tensor([len(TOKENS[i]) for i in records])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}, LABELS[torch.from_numpy(np.array(records))]


def images(records):
    chosen = torch.from_numpy(np.array(records))
    return {"pixel_values": IMAGES[chosen]}, LABELS[chosen]


class Head(nn.Module):
    """A classifier on what a base model says of each place in a record."""

    def __init__(self, base, width=WIDTH):
        super().__init__()
        self.base, self.head = base, nn.Linear(width, 2)

    def forward(self, inputs):
        hidden = self.base(**inputs).last_hidden_state
        mask = inputs.get("attention_mask", torch.ones(hidden.shape[:2]))[..., None]
        return self.head((hidden * mask).sum(1) / mask.sum(1))


def cross_entropy(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def adapted(base, targets=("query", "value"), width=WIDTH, **settings):
    config = LoraConfig(r=2, target_modules=list(targets), **settings)
    return Head(get_peft_model(base, config), width)


def bert(**settings):
    torch.manual_seed(0)
    config = transformers.BertConfig(**TEXT | SMALL | NO_DROPOUT | settings)
    return transformers.BertModel(config, add_pooling_layer=False)


def vit(**settings):
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 8, "hidden_size": WIDTH, "num_hidden_layers": 1}
    config = transformers.ViTConfig(**SMALL | sizes | NO_DROPOUT | settings)
    return transformers.ViTModel(config, add_pooling_layer=False)


def swin(**settings):
    torch.manual_seed(0)
    config = transformers.SwinConfig(
        image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4,
        **NO_DROPOUT | {"drop_path_rate": 0.0} | settings,
    )  # fmt: skip
    return transformers.SwinModel(config, add_pooling_layer=False)


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=1, n_head=2, n_positions=24,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2Model(config)


def llama(**settings):
    torch.manual_seed(0)
    return transformers.LlamaModel(transformers.LlamaConfig(**TEXT | SMALL | settings))


def mixtral():
    torch.manual_seed(0)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    return transformers.MixtralModel(transformers.MixtralConfig(**TEXT | SMALL | experts))


def checkpointed(base, *, reentrant):
    base.activation_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        base.enable_input_require_grads()
    return base


def trainable_positions(model, name):
    model.requires_grad_(False)
    model.get_parameter(name).requires_grad_(True)
    return Head(model)


class Normed(Head):
    """A head behind a layer chosen by the test."""

    def __init__(self, layer):
        super().__init__(bert().requires_grad_(False))
        self.layer = layer

    def forward(self, inputs):
        mask = inputs["attention_mask"][..., None]
        hidden = self.base(**inputs).last_hidden_state * mask
        return self.head(self.layer(hidden.sum(1) / mask.sum(1)))


# Name -> the model, its data, what is named, and what to use instead.
REFUSED = {
    "batch norm": (
        lambda: Normed(nn.BatchNorm1d(WIDTH)),
        texts,
        "module layer is a BatchNorm1d: it mixes records",
        "layer norm",
    ),
    "instance norm": (
        lambda: Normed(nn.InstanceNorm1d(WIDTH)),
        texts,
        "module layer is a InstanceNorm1d",
        "group norm",
    ),
    "dropout": (
        lambda: adapted(bert(hidden_dropout_prob=0.1)),
        texts,
        "dropout has dropout 0.1",
        "Set dropout to 0",
    ),
    "functional dropout": (
        lambda: adapted(llama(attention_dropout=0.1), ["q_proj"]),
        texts,
        "self_attn has dropout 0.1",
        "Set dropout to 0",
    ),
    "LoRA's own dropout": (
        lambda: adapted(bert(), lora_dropout=0.2),
        texts,
        "lora_dropout.default has dropout 0.2",
        "Set dropout to 0",
    ),
    "stochastic depth": (
        lambda: Head(swin(drop_path_rate=0.3).requires_grad_(False), 16),
        images,
        "has dropout 0.3",
        "Set dropout to 0",
    ),
    "DoRA": (
        lambda: adapted(bert(), use_dora=True),
        texts,
        "query is a Linear with DoRA",
        "use_dora = False",
    ),
    "LoRA on embeddings": (
        lambda: adapted(bert(), ["word_embeddings"]),
        texts,
        "word_embeddings is a Embedding with LoRA on an embedding",
        "LoRA on linear layers",
    ),
    "position embeddings of BERT": (
        lambda: trainable_positions(bert(), "embeddings.position_embeddings.weight"),
        texts,
        "base.embeddings.position_embeddings is a trainable position embedding",
        "Freeze it",
    ),
    "position embeddings of GPT-2": (
        lambda: trainable_positions(gpt2(), "wpe.weight"),
        texts,
        "base.wpe is a trainable position embedding",
        "Freeze it",
    ),
    "Swin": (
        lambda: adapted(swin(), ["q_proj", "v_proj"], width=16),
        images,
        "is a SwinAttention: its windows are rows",
        "Use a ViT",
    ),
    "non-reentrant checkpointing": (
        lambda: adapted(checkpointed(bert(), reentrant=False)),
        texts,
        "non-reentrant checkpointing",
        "use_reentrant=True together with enable_input_require_grads()",
    ),
    "mixture of experts": (
        lambda: adapted(mixtral(), ["q_proj"]),
        texts,
        "is a MixtralSparseMoeBlock, of a mixture of experts",
        "Use a dense model of the same family",
    ),
}  # fmt: skip


def check(model, collate, loss=cross_entropy):
    check_admission(model, loss=loss, collate=collate, records=RECORDS, physical_batch_size=4)


@pytest.mark.parametrize("kind", REFUSED)
def test_each_kind_is_refused_by_name_with_what_to_use_instead(kind):
    build, collate, named, instead = REFUSED[kind]
    with pytest.raises(AdmissionError, match=re.escape(named)) as refusal:
        check(build(), collate)
    assert instead in refusal.value.hint


@pytest.mark.parametrize(
    ("build", "collate"),
    [
        (lambda: adapted(bert()), texts),
        (lambda: Normed(nn.LayerNorm(WIDTH)), texts),
        (lambda: Normed(nn.GroupNorm(2, WIDTH)), texts),
        (lambda: adapted(vit(), ["q_proj", "v_proj"]), images),
        # ViT's are a parameter of their own, added to each record, and exact.
        (lambda: trainable_positions(vit(), "embeddings.position_embeddings"), images),
        (lambda: Head(swin().requires_grad_(False), 16), images),
        (lambda: adapted(gpt2(), ["c_attn"], fan_in_fan_out=True), texts),
        (lambda: adapted(llama(attention_dropout=0.0), ["q_proj"]), texts),
        (lambda: adapted(checkpointed(bert(), reentrant=True)), texts),
    ],
    ids=[
        "LoRA",
        "layer norm",
        "group norm",
        "ViT",
        "ViT positions",
        "Swin probe",
        "GPT-2",
        "Llama",
        "reentrant",
    ],
)
def test_what_is_named_instead_passes(build, collate):
    check(build(), collate)


MEASURED = [kind for kind in REFUSED if kind not in {"instance norm", "mixture of experts"}]


@pytest.mark.parametrize("kind", MEASURED)
def test_most_would_be_refused_by_what_is_measured_too(kind, monkeypatch):
    monkeypatch.setattr(admission, "refuse_unsupported", lambda _: None)
    build, collate, _, _ = REFUSED[kind]
    with pytest.raises(AdmissionError) as refusal:
        check(build(), collate)
    assert "is a trainable position" not in str(refusal.value)


def test_a_routing_loss_is_refused_by_what_is_measured_too(monkeypatch):
    """A mixture of experts without its balancing loss may pass; with it, it couples the batch."""
    monkeypatch.setattr(admission, "refuse_unsupported", lambda _: None)

    def balanced(model, batch):
        inputs, mixture = batch[0], model.base.get_base_model()
        routed = mixture(**inputs, output_router_logits=True).router_logits
        balance = load_balancing_loss_func(routed, 4, 2, inputs["attention_mask"])
        return cross_entropy(model, batch) + balance

    with pytest.raises(AdmissionError, match=r"couples the records|disturbs the others"):
        check(adapted(mixtral(), ["q_proj"]), texts, balanced)


def test_every_kind_in_the_documentation_is_tested():
    rows = re.findall(r"^\| ([^|]+?) \|", unsupported.__doc__, re.MULTILINE)
    documented = {row.split(" ")[0].lower().rstrip("'s") for row in rows[2:]}
    tested = {kind.split(" ")[0].lower().rstrip("'s") for kind in REFUSED}
    assert documented <= tested | {"trainable"}
