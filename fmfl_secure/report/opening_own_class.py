"""The lines that open an export as the architecture's own class: by `pipeline` of transformers."""

from __future__ import annotations

from collections.abc import Mapping

_LETTERS = (
    "What spells a special token, such as `[SEP]`, the run read as the letters that it is; this "
    "does not."
)
_TEXTS = (
    "`truncation=True` cuts a longer text where the run did. Open it in float32, as the files are: "
    f"in float16 some weights are out of range. {_LETTERS}"
)
_TOKENS = (
    'The run answers for a word by its first token, as `aggregation_strategy="first"` does. '
    f"{_LETTERS}"
)
_CHAT = (
    "The chat template is the run's own: the last message is the prompt, and is not cut where the "
    f"run cut one that was too long for it. {_LETTERS}"
)
# As a run reads a picture: upright, grey of 16 bits in 8, and what is transparent on white.
READ_PICTURE = (
    "image = ImageOps.exif_transpose(Image.open(picture))",
    'image = image.point(lambda value: value / 257 + 0.5) if image.mode == "I;16" else image',
    'image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))',
)
DEEP_PICTURES = (
    "DICOM and pictures of floats, and any of more than 8 bits by `task.image_window`, the run "
    "scaled to 8 bits first, as docs/data.md of FMFL Secure says; these lines do not."
)
_IMAGES = (
    "`backend` is the library that pictures were resized with; another one rounds otherwise. "
    "`pipeline` that is given a file cuts grey of 16 bits off, and lays nothing on white. "
    f"{DEEP_PICTURES}"
)
_BY_LABEL = (
    'classify = pipeline("text-classification", folder, truncation=True)',
    'answer = {one["label"]: one["score"] for one in classify(text, top_k=None)}',
)
# What pipelines are called, where not as the task.
PIPELINES: Mapping[str, str] = {"multi-label-classification": "text-classification"}
_OWN: Mapping[str, tuple[tuple[str, ...], str]] = {
    "text-classification": (_BY_LABEL, _TEXTS),
    "multi-label-classification": (_BY_LABEL, _TEXTS),
    "token-classification": (
        (
            'tag = pipeline("token-classification", folder, ignore_labels=[])',
            'answer = [(one["word"], one["entity"]) for one in tag(text)]',
        ),
        _TOKENS,
    ),
    "image-classification": (
        (
            'processor = AutoImageProcessor.from_pretrained(folder, backend="pil")',
            'classify = pipeline("image-classification", folder, image_processor=processor)',
            *READ_PICTURE,
            'found = classify(image.convert("RGB"), top_k=10_000)',
            'answer = {one["label"]: one["score"] for one in found}',
        ),
        _IMAGES,
    ),
    "causal-lm": (
        (
            'write = pipeline("text-generation", folder)',
            'asked = [{"role": "user", "content": text}]',
            'answer = write(asked, return_full_text=False)[0]["generated_text"].strip()',
        ),
        _CHAT,
    ),
}


def own_class_lines(task: str) -> tuple[list[str], str]:
    """The code, and what is to be said below it.

    Args:
        task: Name of the task.
    """
    lines, note = _OWN[task]
    return list(lines), note
