"""`[task]`: one section for each kind of task, told apart by `kind`.

A key of another kind is refused like any unknown key. Whatever could be read off the data (labels,
entities) is given here instead: private data must not decide it.

`settings.federation` reads `[task]` as one of these by its `kind`, and `tasks.make` builds the
task that the section describes.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

import msgspec
from typing_extensions import override

from fmfl_secure.errors import ConfigError
from fmfl_secure.extensions import ExtensionName
from fmfl_secure.settings.types import Finite, NonEmpty, Positive, Section, TagScheme, UnitRule

Labels = Annotated[tuple[NonEmpty, ...], msgspec.Meta(min_length=2, max_length=10_000)]
Window: TypeAlias = tuple[Finite, Finite] | None
Weights: TypeAlias = tuple[Positive, ...]
Aliases: TypeAlias = tuple[tuple[NonEmpty, NonEmpty], ...]


class TaskBase(Section, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """Settings that every task has.

    Attributes:
        unit: `record`, or a column that identifies the person a row belongs to; `PatientID` in a
            folder of DICOM files.
        unit_normalisation: Which differences between ids of `unit` are of no account besides white
            space, what cannot be seen and how a number is stored (`fmfl_secure.data.unit_ids`):
            `case`; `punctuation`: letters and digits alone count; `zeros` that begin a number;
            `compatibility`: full width, ligatures and the like (NFKC).
            `exact` states that ids which differ otherwise are different people. Until it does,
            `fmfl-secure check` asks about those that are alike.
        on_bad_row: Skip an unusable row, or have the site drop out, which tells the others that its
            data hold one. `fmfl-secure check` names the first either way.
        readers: Other packages' forms of data that a site may have, `PACKAGE:NAME`
            (`fmfl_secure.extensions`). Which one a file is of, its name says.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"unit_normalisation", "readers"})

    unit: NonEmpty = "record"
    unit_normalisation: tuple[UnitRule, ...] = ()
    on_bad_row: Literal["error", "skip"] = "skip"
    readers: tuple[ExtensionName, ...] = ()

    def __post_init__(self) -> None:
        require_distinct("task.unit_normalisation", self.unit_normalisation)
        require_distinct("task.readers", self.readers)
        if self.unit_normalisation and self.unit == "record":
            raise ValueError(
                "task.unit_normalisation is of a column's ids, and task.unit is 'record'"
            )
        self._require_one_use_a_column()

    def _require_one_use_a_column(self) -> None:
        """Refuse a column named for two things, such as a label that the model would be told."""
        uses: dict[str, str] = {}
        for name in self._columns_read:
            named = getattr(self, name)
            for column in {named} if isinstance(named, str) else set(named):
                other = uses.setdefault(column, name) if column else name
                if other != name:
                    raise ValueError(f"task.{other} and task.{name} name one column, {column!r}")
        learned = {"label_column", "tags_column", "response_column"}
        if uses.get(self.unit) in learned:
            raise ValueError(
                f"task.unit is the column of task.{uses[self.unit]}: all who share an answer would "
                "be one person"
            )

    @property
    def _columns_read(self) -> tuple[str, ...]:
        """The settings that name columns which this task reads."""
        names = self.__struct_fields__
        return tuple(name for name in names if name.endswith(("_column", "_columns")))

    @property
    def kind(self) -> str:
        """The task's name in settings."""
        return str(self.__struct_config__.tag)

    @property
    def fits_own_class(self) -> bool:
        """A head is trained that the architecture's own class in transformers can hold."""
        return False


class _Headed(TaskBase, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of tasks whose head a class of transformers can hold.

    Attributes:
        head: `architecture`: on features that the architecture's own class computes, so that an
            export opens with it and with `pipeline`. `unit-norm`: on features at unit norm; the
            card of an export has the lines that open it. docs/models.md says which is which.
    """

    LATER: ClassVar[frozenset[str]] = TaskBase.LATER | {"head"}

    head: Literal["unit-norm", "architecture"] = "unit-norm"

    @property
    @override
    def fits_own_class(self) -> bool:
        return self.head == "architecture"


class TextClassificationSection(
    _Headed, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="text-classification"
):
    """A text, one label.

    Attributes:
        text_columns: Names that the text column may have, the first one present is taken.
        label_column: Name of the label column.
        labels: All labels in order.
        label_aliases: Other spellings that a site's file may have, each in a pair
            with the label it means.
        label_texts: What each label means, in public words and in their order: the head starts
            from their embeddings. Empty starts it at zero.
        label_weights: What the loss of a record is multiplied by, for each label in order; empty
            for 1. Declared, and never read off private data: `ask --write-weights`.
    """

    LATER: ClassVar[frozenset[str]] = _Headed.LATER | {
        "label_aliases",
        "label_texts",
        "label_weights",
    }

    text_columns: Annotated[tuple[NonEmpty, ...], msgspec.Meta(min_length=1)]
    label_column: NonEmpty
    labels: Labels
    label_aliases: Aliases = ()
    label_texts: tuple[NonEmpty, ...] = ()
    label_weights: Weights = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_labels(self.labels)
        require_aliases(self.labels, self.label_aliases)
        require_weights(self.labels, self.label_weights)
        require_distinct("task.label_texts", self.label_texts)
        if len(self.label_texts) not in {0, len(self.labels)}:
            raise ValueError(
                f"task.label_texts has {len(self.label_texts)} texts, expected one for each of "
                f"the {len(self.labels)} labels, or none"
            )
        if self.label_texts and self.head != "unit-norm":
            raise ValueError(
                "task.label_texts needs task.head = 'unit-norm': the architecture's own head "
                "reads features of another size"
            )


class MultiLabelClassificationSection(
    TextClassificationSection,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="multi-label-classification",
):
    """A text, any number of labels.

    Attributes:
        text_columns: See `TextClassificationSection`.
        label_column: Name of the column with a list of labels.
        labels: All labels in order.
        label_aliases: See `TextClassificationSection`.
        label_texts: None here.
        label_weights: None here.
        label_separator: Where a file holds texts in place of lists, what stands between labels.
        no_label: The text that stands for no label, such as `none`; without one, an empty list
            does, and an empty cell is a bad row.
    """

    label_column: NonEmpty = "labels"
    label_separator: str = ""
    no_label: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_separator and any(
            self.label_separator in name
            for name in (*self.labels, *(spelling for spelling, _ in self.label_aliases))
        ):
            raise ValueError("task.label_separator is part of a label")
        if self.no_label in self.labels:
            raise ValueError("task.no_label is itself among task.labels")
        if self.label_texts:
            raise ValueError(
                "task.label_texts is for one label a record: what it does where each label is "
                "decided by itself has not been measured"
            )
        if self.label_weights:
            raise ValueError("task.label_weights is for one label a record")


class TokenClassificationSection(
    _Headed, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="token-classification"
):
    """A text taken apart into words, a tag for each: entities, de-identification.

    Attributes:
        tokens_column: Column with a list of words.
        tags_column: Column with a list of as many tags: `O`, `B-TYPE` where an entity begins,
            `I-TYPE` where it goes on.
        entities: All types of entity in order.
        tag_names: Where files hold integers for tags: what 0, 1, 2, ... stand for. A Parquet file
            of Hugging Face's datasets says it itself.
        tag_scheme: How files write entities: `bio` (IOB2); `bioes`, BILOU too; `iob1`. Read as BIO,
            which is what is learned and answered.
    """

    LATER: ClassVar[frozenset[str]] = _Headed.LATER | {"tag_names", "tag_scheme"}

    tokens_column: NonEmpty = "tokens"
    tags_column: NonEmpty = "tags"
    entities: Annotated[tuple[NonEmpty, ...], msgspec.Meta(min_length=1, max_length=1000)]
    tag_names: tuple[NonEmpty, ...] = ()
    tag_scheme: TagScheme = "bio"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_distinct("task.entities", self.entities)
        require_distinct("task.tag_names", self.tag_names)

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags in the order of their indices."""
        return ("O", *(f"{place}-{entity}" for entity in self.entities for place in "BI"))


PLAIN_TEMPLATE = "{prompt}\n"


class CausalLMSection(
    TaskBase, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="causal-lm"
):
    """A prompt and a response; the response is learned.

    Attributes:
        prompt_column: Column with the prompt.
        response_column: Column with the response.
        input_column: Column with what a prompt is about, which may be empty, as Alpaca's files
            have it: it stands behind the prompt, after an empty line. Empty for none.
        template: What the model reads before the response; `{prompt}` stands for the prompt.
        chat: Write prompts and responses, or `messages_column`, by the tokenizer's own chat
            template in place of `template`.
        last_space: Where `template` ends with a space, whose it is: the response's ("response"),
            for a model reads " yes" at a sentence's end and hardly ever "yes"; or the template's
            ("template"), as in version 0.1.0, where nothing else is said.
        messages_column: With `chat`, column with whole conversations: what the assistant says is
            learned, in every turn. Empty for one prompt and one response a row.
        system: With `chat`, the system message of conversations that have none; public.
        max_new_tokens: Longest response that `fmfl-secure predict` writes.
        responses: All responses there are, where a response is one of a few, as a label is:
            figures are then of accuracy and macro F1 over these too, and sites may be asked for
            accuracy, likelihood and more (`docs/private-answers.md`). Declared, and never read off
            private data. Training and `predict` do not look at them.
    """

    LATER: ClassVar[frozenset[str]] = TaskBase.LATER | {
        "chat",
        "input_column",
        "last_space",
        "messages_column",
        "responses",
        "system",
    }

    prompt_column: NonEmpty = "prompt"
    response_column: NonEmpty = "response"
    input_column: str = ""
    template: NonEmpty = PLAIN_TEMPLATE
    last_space: Literal["template", "response"] = "template"
    chat: bool = False
    messages_column: str = ""
    system: str = ""
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, le=8192)] = 64
    responses: Annotated[tuple[NonEmpty, ...], msgspec.Meta(max_length=1000)] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_distinct("task.responses", tuple(each.strip() for each in self.responses))
        if len(self.responses) == 1 or not all(each.strip() for each in self.responses):
            raise ValueError("task.responses are at least two, none of them blank, or none at all")
        if self.template.count("{prompt}") != 1:
            raise ValueError("task.template does not hold {prompt} once")
        if self.chat and self.template != PLAIN_TEMPLATE:
            raise ValueError(
                "task.chat takes the tokenizer's template, and task.template is another: leave "
                "one out"
            )
        if not self.chat and (self.messages_column or self.system):
            raise ValueError("task.messages_column and task.system are for task.chat = true")
        if self.messages_column and self.input_column:
            raise ValueError("task.input_column is for prompts and responses, not for messages")

    @property
    @override
    def _columns_read(self) -> tuple[str, ...]:
        if self.messages_column:
            return ("messages_column",)
        return ("prompt_column", "response_column", "input_column")

    @property
    def read_template(self) -> str:
        """The part of the template that is read before a response."""
        return self.template.removesuffix(self.before_response)

    @property
    def before_response(self) -> str:
        """The template's last spaces where they are the response's, else nothing."""
        tail = self.template.partition("{prompt}")[2]
        return tail[len(tail.rstrip(" ")) :] if self.last_space == "response" else ""


class PreferenceSection(
    CausalLMSection, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="preference"
):
    """A prompt and two answers, one of which was chosen (DPO, arXiv 2305.18290).

    A cell is a text or, with `chat`, a list of messages. An answer is then its own message alone,
    or a whole conversation that ends with it.

    Attributes:
        prompt_column: Column with the prompt; empty where answers are whole conversations.
        chosen_column: Column with the answer that was chosen.
        rejected_column: Column with the one that was not.
        beta: How much the implicit reward counts: the smaller, the further the model may go from
            what it was before training.
        response_column: None here.
        input_column: None here.
        messages_column: None here.
        responses: None here.
    """

    prompt_column: str = "prompt"
    chosen_column: NonEmpty = "chosen"
    rejected_column: NonEmpty = "rejected"
    beta: Positive = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt_column and not self.chat:
            raise ValueError("task.prompt_column may be empty with task.chat = true alone")
        plain = CausalLMSection()
        for name in ("response_column", "input_column", "messages_column", "responses"):
            if getattr(self, name) != getattr(plain, name):
                raise ValueError(f"task.{name} is for causal-lm, and a preference has none")

    @property
    @override
    def _columns_read(self) -> tuple[str, ...]:
        return ("prompt_column", "chosen_column", "rejected_column")


class ImageClassificationSection(
    _Headed, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="image-classification"
):
    """An image, one label: a folder with a subfolder a label, or a table of paths.

    Attributes:
        image_column: Column with the image's path, from the table's folder.
        image_window: Which values are black and white in pictures of more than 8 bits, such as
            [0, 4095] of 12 bits in 16, or [-160, 240] Hounsfield of CT; without one, the range
            that the file's format or header says, if it says any.
        label_column: Column with the label.
        labels: All labels in order.
        label_aliases: Other spellings that a site's file may have, each in a pair
            with the label it means.
        label_weights: See `TextClassificationSection`.
    """

    LATER: ClassVar[frozenset[str]] = _Headed.LATER | {
        "label_aliases",
        "image_window",
        "label_weights",
    }

    image_column: NonEmpty = "image"
    image_window: Window = None
    label_column: NonEmpty = "label"
    labels: Labels
    label_aliases: Aliases = ()
    label_weights: Weights = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_window(self.image_window)
        require_labels(self.labels)
        require_aliases(self.labels, self.label_aliases)
        require_weights(self.labels, self.label_weights)


class ImageTextSection(
    TaskBase, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="image-text"
):
    """An image and the text that describes it, for two-tower models.

    Attributes:
        image_column: Column with the image's path, from the table's folder.
        image_window: Which values are black and white in pictures of more than 8 bits, such as
            [0, 4095] of 12 bits in 16, or [-160, 240] Hounsfield of CT; without one, the range
            that the file's format or header says, if it says any.
        text_column: Column with the text.
        loss: `sigmoid`: the pair's own text attracts its image and public anchor texts repel it
            (arXiv 2303.15343 with fixed negatives); `cosine`: the pair alone; `info-nce`: the
            other pairs of a batch repel, which only a run without privacy can use.
        anchors: Public texts, which `sigmoid` needs; never read off private data.
        logit_scale: Factor on a cosine similarity; where SigLIP's training starts by default.
        logit_bias: Added to it.
    """

    LATER: ClassVar[frozenset[str]] = TaskBase.LATER | {"image_window"}

    image_column: NonEmpty = "image"
    image_window: Window = None
    text_column: NonEmpty = "text"
    loss: Literal["sigmoid", "cosine", "info-nce"] = "sigmoid"
    anchors: tuple[NonEmpty, ...] = ()
    logit_scale: Positive = 10.0
    logit_bias: Finite = -10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_window(self.image_window)
        require_distinct("task.anchors", self.anchors)
        if (self.loss == "sigmoid") != bool(self.anchors):
            raise ValueError(
                "task.anchors: loss 'sigmoid' needs public texts, the others take none"
            )


class ImageTextClassificationSection(
    TaskBase, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="image-text-classification"
):
    """An image and a text together, one label.

    Attributes:
        image_column: Column with the image's path, from the table's folder.
        image_window: Which values are black and white in pictures of more than 8 bits, such as
            [0, 4095] of 12 bits in 16, or [-160, 240] Hounsfield of CT; without one, the range
            that the file's format or header says, if it says any.
        text_column: Column with the text.
        label_column: Column with the label.
        labels: All labels in order.
        label_aliases: Other spellings that a site's file may have, each in a pair
            with the label it means.
        label_weights: See `TextClassificationSection`.
    """

    LATER: ClassVar[frozenset[str]] = TaskBase.LATER | {
        "label_aliases",
        "image_window",
        "label_weights",
    }

    image_column: NonEmpty = "image"
    image_window: Window = None
    text_column: NonEmpty = "text"
    label_column: NonEmpty = "label"
    labels: Labels
    label_aliases: Aliases = ()
    label_weights: Weights = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_window(self.image_window)
        require_labels(self.labels)
        require_aliases(self.labels, self.label_aliases)
        require_weights(self.labels, self.label_weights)


_Section = TypeVar("_Section", bound=TaskBase)


class ExtensionSection(
    TaskBase, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="extension"
):
    """Another package's task (`fmfl_secure.extensions`).

    Parties that have no model need not have the package: they compare what is written here.

    Attributes:
        name: `PACKAGE:NAME`; it is the task's kind wherever a kind is named.
        options: What the package's own section has besides `unit` and its like.
    """

    name: ExtensionName
    options: dict[str, Any] = msgspec.field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(msgspec.json.encode(self, order="sorted"))

    @property
    def kind(self) -> str:
        """The task's name, as in `kind` of other sections."""
        return self.name

    def read(self, section: type[_Section]) -> _Section:
        """The package's own section.

        Raises:
            ConfigError: An option is unknown, missing or wrong.
        """
        shared = {name: getattr(self, name) for name in TaskBase.__struct_fields__}
        try:
            unknown = sorted(
                set(self.options) - {*section.__struct_fields__} | {*shared} & {*self.options}
            )
            if unknown:
                raise ConfigError(f"task.options has {unknown[0]!r}, which {self.name!r} does not")
            return msgspec.convert({**self.options, **shared}, section)
        except msgspec.ValidationError as error:
            raise ConfigError(f"task.options of {self.name!r}: {error}") from error


TaskSection: TypeAlias = (
    TextClassificationSection
    | MultiLabelClassificationSection
    | TokenClassificationSection
    | CausalLMSection
    | PreferenceSection
    | ImageClassificationSection
    | ImageTextSection
    | ImageTextClassificationSection
    | ExtensionSection
)


def require_distinct(name: str, values: tuple[str, ...]) -> None:
    """Refuse a list that holds something twice: each value's place is its index."""
    if len(set(values)) != len(values):
        raise ValueError(f"{name} has a {'label' if name == 'task.labels' else 'value'} twice")


def require_labels(labels: tuple[str, ...]) -> None:
    """Refuse a label that stands twice, and two that nobody can tell apart by reading them."""
    from privacy import plain  # noqa: PLC0415 - help and schemas load no arithmetic

    require_distinct("task.labels", labels)
    if len(set(map(plain, labels))) != len(labels):
        raise ValueError(
            "task.labels has two labels that read the same: they differ in white space, in what "
            "cannot be seen, or in how characters are composed"
        )


def require_aliases(labels: tuple[str, ...], aliases: Aliases) -> None:
    """Refuse a spelling of no label, and one that is a label itself."""
    require_distinct("task.label_aliases", tuple(spelling for spelling, _ in aliases))
    for spelling, label in aliases:
        if label not in labels:
            raise ValueError(f"task.label_aliases: {label!r} is not among task.labels")
        if spelling in labels:
            raise ValueError(f"task.label_aliases: {spelling!r} is itself among task.labels")


def require_weights(labels: tuple[str, ...], weights: Weights) -> None:
    """Refuse weights of some labels and not of others."""
    if len(weights) not in {0, len(labels)}:
        raise ValueError(
            f"task.label_weights has {len(weights)} numbers, expected one for each of the "
            f"{len(labels)} labels, or none"
        )


def without_weights(task: TaskSection) -> TaskSection:
    """A task without declared weights of labels, which no figure depends on."""
    if not getattr(task, "label_weights", ()):
        return task
    return msgspec.structs.replace(task, label_weights=())


def require_window(window: Window) -> None:
    """Refuse a window that does not open."""
    if window is not None and not window[0] < window[1]:
        raise ValueError("task.image_window: black must be below white")
