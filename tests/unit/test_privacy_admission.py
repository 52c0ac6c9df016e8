"""The gate lets through what has the promised sensitivity, and names what has not."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from privacy import AdmissionError
from privacy.mechanism.admission import check_admission, check_apart
from privacy.mechanism.plan import CLIP_TOLERANCE
from privacy.mechanism.training import ClippedSum

torch.set_num_threads(1)

# PEFT asks a transformers model for an attribute by its older name.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

RECORDS, VOCABULARY, WIDTH = 8, 50, 16
LENGTHS = [1, 2, 3, 5, 8, 13, 20, 4]


def tokens():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, VOCABULARY, (n,), generator=generator) for n in LENGTHS]


TOKENS = tokens()
LABELS = torch.arange(RECORDS) % 2


def collate(records):
    """Token ids padded to the longest, their mask, and labels."""
    chosen = [TOKENS[i] for i in records]
    ids = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
    lengths = torch.tensor([len(row) for row in chosen])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).float()
    return ids, mask, LABELS[torch.from_numpy(np.asarray(records))]


def cross_entropy(model, batch):
    return functional.cross_entropy(model(batch), batch[2], reduction="none")


class Classifier(nn.Module):
    """A tiny encoder, mean-pooled over a record's own tokens, and a head."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(WIDTH, 2)

    def forward(self, batch):
        ids, mask, _ = batch
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.head((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def encoder(**settings):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
        **{
            "num_hidden_layers": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
        | settings,
    )
    return BertModel(config, add_pooling_layer=False)


def lora(settings=None, **adapter):
    adapter = {"r": 2, "target_modules": ["query", "value"]} | adapter
    return Classifier(get_peft_model(encoder(**settings or {}), LoraConfig(**adapter)))


class Bag(nn.Module):
    """Embeddings added up, a hidden step chosen by the test, and an output layer."""

    def __init__(self, middle=None, *, before=None):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.middle = middle or nn.Identity()
        self.before = before or nn.Identity()
        self.out = nn.Linear(WIDTH, 2)

    def pooled(self, batch):
        return (self.embedding(batch[0]) * batch[1][..., None]).sum(1)

    def forward(self, batch):
        return self.out(self.middle(self.before(self.pooled(batch))))


def check(model, *, loss=cross_entropy, records=RECORDS, collate=collate, physical_batch_size=4):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    try:
        check_admission(
            model,
            loss=loss,
            collate=collate,
            records=records,
            physical_batch_size=physical_batch_size,
        )
    finally:  # parameters come back, whatever the verdict
        for name, parameter in model.named_parameters():
            assert torch.equal(before[name], parameter), name
            assert parameter.grad is None
            assert getattr(parameter, "summed_grad", None) is None
        assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("physical_batch_size", [1, 3, 64])
def test_bert_with_lora_passes(physical_batch_size):
    check(lora(), physical_batch_size=physical_batch_size)


def test_bert_with_a_frozen_passes():
    model = lora()
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    check(model)


def test_a_zero_initialised_head_is_no_excuse():
    """With B and the head zero every encoder gradient is zero; the gate sets both for its test."""
    model = lora()
    nn.init.zeros_(model.head.weight)
    check(model)


@pytest.mark.parametrize(
    "middle",
    [
        lambda: nn.Linear(WIDTH, WIDTH),
        lambda: nn.LayerNorm(WIDTH),
        lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GroupNorm(2, WIDTH), nn.GELU()),
        lambda: nn.Dropout(0.0),
    ],
)
def test_ordinary_layers_pass(middle):
    check(Bag(middle()))


def test_a_linear_probe_passes():
    model = lora()
    model.encoder.requires_grad_(False)
    check(model)


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (lambda: nn.BatchNorm1d(WIDTH), "BatchNorm1d: it mixes records"),
        (lambda: nn.SyncBatchNorm(WIDTH), "SyncBatchNorm"),
        (lambda: nn.InstanceNorm1d(WIDTH, track_running_stats=True), "InstanceNorm1d"),
        (lambda: nn.Dropout(0.1), "dropout 0.1"),
        (lambda: nn.AlphaDropout(0.2), "dropout 0.2"),
    ],
)
def test_kinds_of_module_that_are_refused_by_name(middle, reason):
    with pytest.raises(AdmissionError, match=reason):
        check(Bag(middle()))


def test_frozen_batch_norm_is_refused_too():
    model = Bag(nn.BatchNorm1d(WIDTH))
    model.middle.requires_grad_(False)
    with pytest.raises(AdmissionError, match="middle is a BatchNorm1d"):
        check(model)


@pytest.mark.parametrize("where", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_of_a_base_model_is_refused(where):
    with pytest.raises(AdmissionError, match=r"dropout 0\.1"):
        check(lora({where: 0.1}))


class Functional(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, values):
        return self.function(values)


def sorted_across(values):
    return values + values.sort(dim=0).values


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.dropout(x, 0.5),
        lambda x: x - 0.5 * x.mean(dim=0, keepdim=True),
        lambda x: x - x.mean(dim=0, keepdim=True),
        lambda x: x / (1 + x.norm()),
        lambda x: x + x.flip(0),
        lambda x: x + x[:1],
        lambda x: x + 0.3 * x.detach().mean(dim=0),
        sorted_across,
    ],
)
def test_a_module_that_mixes_records_is_refused(function):
    with pytest.raises(AdmissionError):
        check(Bag(Functional(function)))


def test_the_same_module_without_mixing_passes():
    check(Bag(Functional(lambda x: x - 0.5 * x.mean(dim=1, keepdim=True))))


def contrastive(model, batch):
    """CLIP's InfoNCE: every record is a negative of every other."""
    left, right = model.embedding(batch[0]).sum(1), model(batch)
    right = functional.pad(right, (0, WIDTH - 2))
    scores = functional.normalize(left, dim=1) @ functional.normalize(right, dim=1).T
    target = torch.arange(len(scores))
    return functional.cross_entropy(scores, target, reduction="none") + functional.cross_entropy(
        scores.T, target, reduction="none"
    )


def token_losses(model, batch):
    scores = model.out(model.embedding(batch[0]))
    target = batch[2][:, None].expand(-1, scores.shape[1])
    each = functional.cross_entropy(scores.transpose(1, 2), target, reduction="none")
    return each * batch[1], batch[1]


def mean_over_the_batch_s_tokens(model, batch):
    losses, mask = token_losses(model, batch)
    return losses.sum(1) / mask.sum()


def mean_over_the_padded_length(model, batch):
    losses, _ = token_losses(model, batch)
    return losses.mean(1)


def mean_over_own_tokens(model, batch):
    losses, mask = token_losses(model, batch)
    return losses.sum(1) / mask.sum(1)


@pytest.mark.parametrize(
    "loss",
    [
        contrastive,
        mean_over_the_batch_s_tokens,
        mean_over_the_padded_length,
        lambda m, b: cross_entropy(m, b) - cross_entropy(m, b).mean(),
        lambda m, b: cross_entropy(m, b) - 0.5 * cross_entropy(m, b).mean(),
        lambda m, b: cross_entropy(m, b).mean().expand(len(b[2])),
        lambda m, b: cross_entropy(m, b) / cross_entropy(m, b).detach().max(),
        lambda m, b: cross_entropy(m, b) * len(b[2]),
        lambda m, b: cross_entropy(m, b) * (1 + b[2].float().mean()),  # class weights off the batch
    ],
)
def test_losses_that_couple_records_are_refused(loss):
    with pytest.raises(AdmissionError):
        check(Bag(), loss=loss)


def test_coupling_is_named_with_its_size():
    with pytest.raises(AdmissionError, match=r"by \d+\.\d+ C: a loss or a module couples"):
        check(Bag(), loss=mean_over_the_batch_s_tokens)
    mixing = Functional(lambda x: x - 0.5 * x.mean(dim=0, keepdim=True))
    with pytest.raises(AdmissionError, match=r"by \d+\.\d+ C: a loss or a module couples"):
        check(Bag(mixing))


def test_a_mean_over_a_record_s_own_tokens_passes():
    check(Bag(), loss=mean_over_own_tokens)


@pytest.mark.parametrize(
    "loss",
    [lambda m, b: cross_entropy(m, b).mean(), lambda m, b: cross_entropy(m, b)[:, None]],
    ids=["reduced", "column"],
)
def test_losses_of_another_shape_are_refused(loss):
    with pytest.raises(AdmissionError, match="shape"):
        check(Bag(), loss=loss)


def test_parameters_that_get_no_gradient_are_refused():
    class Spare(Bag):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)

    with pytest.raises(AdmissionError, match=r"spare\.weight is trainable but the loss"):
        check(Spare())

    class Detached(Spare):
        def forward(self, batch):
            return super().forward(batch) + 0.0 * self.spare(torch.ones(1, 2))

    with pytest.raises(AdmissionError, match=r"spare\.weight is trainable but its gradient"):
        check(Detached())


def test_a_model_with_nothing_to_train_is_refused():
    model = Bag()
    model.requires_grad_(False)
    with pytest.raises(AdmissionError, match="no parameter is trainable"):
        check(model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_trainable_parameters_of_another_dtype_are_refused(dtype):
    def loss(model, batch):
        ids, mask, labels = batch
        return cross_entropy(model, (ids, mask.to(dtype), labels))

    with pytest.raises(AdmissionError, match="float32"):
        check(Bag().to(dtype), loss=loss)


def test_too_few_synthetic_records_are_refused():
    with pytest.raises(AdmissionError, match="at least 4"):
        check(Bag(), records=3)


def test_synthetic_records_without_gradient_measure_nothing():
    def mostly_ignored(model, batch):
        return cross_entropy(model, batch) * (batch[0][:, 0] == TOKENS[0][0])

    with pytest.raises(AdmissionError, match="measure nothing"):
        check(Bag(), loss=mostly_ignored)


class Tied(nn.Module):
    """One tensor as embedding and as output layer, as language models have it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.out = nn.Linear(6, VOCABULARY, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, batch):
        return self.out(torch.tanh(self.embedding(batch[0])))


def language_model_loss(model, batch):
    each = functional.cross_entropy(model(batch).transpose(1, 2), batch[0], reduction="none")
    return (each * batch[1]).sum(1) / batch[1].sum(1)


def per_record_norms_hold(model, loss):
    """Whether a batch's clipped sum is the sum of record by record gradients, by autograd."""
    weights = [p for p in model.parameters() if p.requires_grad]
    single = []
    for i in range(RECORDS):
        gradients = torch.autograd.grad(loss(model, collate([i])).sum(), weights)
        flat = torch.cat([g.reshape(-1) for g in gradients])
        single.append(flat / max(1.0, float(flat.norm())))
    path = ClippedSum(
        model,
        loss=loss,
        collate=collate,
        optimizer=torch.optim.SGD(weights, lr=1.0),
        max_grad_norm=1.0,
        noise_stddev=1.0,
        expected_batch_size=1.0,
        physical_batch_size=RECORDS,
    )
    with path:
        path.accumulate([np.array([i]) for i in range(RECORDS)])
        total = path.take_sum()
    return torch.allclose(total, torch.stack(single).sum(0).double(), atol=1e-4)


def test_tied_parameters_are_admitted_only_as_far_as_their_sums_are_exact():
    """The gate measures; its verdict on a tied model must be the one found by hand."""
    assert per_record_norms_hold(Tied(), language_model_loss)
    check(Tied(), loss=language_model_loss)


class TiedAcrossForms(nn.Module):
    """The same tensor inside a layer and outside of one, where no hook sees it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = Bag()

    def forward(self, batch):
        pooled = self.inner.pooled(batch)
        return self.inner(batch) + functional.linear(pooled, self.inner.out.weight)


def test_parameters_tied_past_the_hooks_are_refused():
    with pytest.raises(AdmissionError):
        check(TiedAcrossForms())


class ScalarParameter(Bag):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        return self.scale * super().forward(batch)


@pytest.mark.parametrize(
    "build",
    [
        lambda: lora(use_dora=True),
        lambda: lora(target_modules=["word_embeddings"]),
        lambda: Classifier(encoder()),  # position embeddings are shared by all records
        lambda: Bag(Functional(functional.relu_), before=nn.Linear(WIDTH, WIDTH)),
        ScalarParameter,
    ],
    ids=["dora", "lora on embeddings", "position embeddings", "in place", "scalar parameter"],
)
def test_what_hooks_cannot_serve_is_refused(build):
    with pytest.raises(AdmissionError):
        check(build())


class Decoder(nn.Module):
    """GPT-2 with LoRA on `c_attn`, which is a Conv1D; the last state of a record is classified."""

    def __init__(self, change=None):
        super().__init__()
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=1, n_head=2, n_positions=24,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
        adapter = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
        self.encoder = get_peft_model(GPT2Model(config), adapter)
        self.head = nn.Linear(WIDTH, 2)
        if change is not None:
            change(self.encoder)

    def forward(self, batch):
        ids, mask, _ = batch
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.head(hidden[torch.arange(len(ids)), mask.sum(1).long() - 1])


def merged(adapted):
    adapted.merge_adapter()


def disabled(adapted):
    adapted.base_model.disable_adapter_layers()
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad = "lora_" in name


def elsewhere(adapted):
    """What is trained is not what is computed with, as after a move that copies parameters."""
    for module in list(adapted.modules()):
        if hasattr(module, "lora_B"):
            module.lora_B["default"].forward = copy.deepcopy(module.lora_B["default"]).forward


def unseen(adapted):
    """Computed with by a function, so that only autograd sees it and no record's gradient."""
    for module in list(adapted.modules()):
        if hasattr(module, "lora_B"):
            weight = module.lora_B["default"].weight
            module.lora_B["default"] = nn.Identity()
            module.lora_B["default"].weight = weight
            module.lora_B["default"].forward = lambda x, weight=weight: functional.linear(x, weight)


@pytest.mark.parametrize("change", [merged, disabled, elsewhere, unseen])
def test_opacus_issue_820_an_adapter_that_silently_does_not_train_is_caught(change):
    """github.com/meta-pytorch/opacus/issues/820: GPT-2's c_attn, a loss that falls, no update."""
    with pytest.raises(
        AdmissionError, match=r"lora_|per-record gradients do not work|one taken record by record"
    ):
        check(Decoder(change))


def test_opacus_issue_820_the_adapter_of_the_same_model_trains():
    model = Decoder()
    check(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_B" in n}
    path = ClippedSum(
        model,
        loss=cross_entropy,
        collate=collate,
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0),
        max_grad_norm=1.0,
        noise_stddev=1.0,
        expected_batch_size=1.0,
        physical_batch_size=4,
    )
    with path:
        path.accumulate([np.array([record]) for record in range(RECORDS)])
        moved = path.take_sum()
    assert before
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    sizes = [p.numel() for p in model.parameters() if p.requires_grad]
    parts = dict(zip(names, torch.split(moved, sizes), strict=True))
    assert all(parts[name].abs().max() > 1e-4 for name in before)


@pytest.fixture
def steep():
    """A model whose weights are so large that its gradients hang on how float32 rounds."""
    model = lora({"num_hidden_layers": 8, "initializer_range": 0.3}, r=4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 60.0)
    return model


def apart(model, bound=1.0, *, collate=collate, physical_batch_size=8):
    check_apart(
        model,
        loss=cross_entropy,
        collate=collate,
        records=RECORDS,
        physical_batch_size=physical_batch_size,
        max_grad_norm=bound,
    )


def test_where_float32_keeps_records_apart_they_pass():
    apart(lora())
    apart(lora({"num_hidden_layers": 8, "initializer_range": 0.3}, r=4), bound=1e-3)


def test_weights_at_which_one_unit_moves_the_others_are_refused(steep):
    trainable = [p for p in steep.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trainable]
    path = ClippedSum(
        steep,
        loss=cross_entropy,
        collate=collate,
        optimizer=torch.optim.SGD(trainable, lr=0.0),
        max_grad_norm=1.0,
        noise_stddev=1.0,
        expected_batch_size=1.0,
        physical_batch_size=3,
    )

    def summed(left_out):
        with path:
            path.accumulate([np.array([i]) for i in range(RECORDS) if i != left_out])
            return path.take_sum()

    # What the gate is for: the trainer's own guarantee does not hold there.
    moved = max(float((summed(None) - summed(unit)).norm()) for unit in range(RECORDS))
    assert moved > 1.0 + CLIP_TOLERANCE
    with pytest.raises(AdmissionError, match="float32 rounds"):
        apart(steep)
    assert all(torch.equal(p, q) for p, q in zip(trainable, before, strict=True))
    assert not any(m._forward_hooks for m in steep.modules())


def test_weights_that_give_no_gradient_move_nothing(steep):
    with torch.no_grad():
        for parameter in steep.parameters():
            if parameter.requires_grad:
                parameter.fill_(float("nan"))
    apart(steep)


def test_no_more_records_are_in_memory_than_a_step_has():
    sizes = []

    def noted(records):
        sizes.append(len(records))
        return collate(records)

    apart(lora(), collate=noted, physical_batch_size=2)
    assert sizes == [2] * (RECORDS // 2) + [1] * RECORDS
