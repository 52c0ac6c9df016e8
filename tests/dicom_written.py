"""DICOM files made up, with a secret in every place of the header that has room for one."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

SECRET = "ZANZIBAR"


def dicom(
    pixels: NDArray[Any],
    *,
    kind: str = "MONOCHROME2",
    bits: int = 0,
    patient: str | None = f"{SECRET}-7",
    syntax: str = ExplicitVRLittleEndian,
    compress: bool = False,
    **tags: Any,
) -> bytes:
    """A file.

    Args:
        pixels: Integers, shape (rows, columns), (rows, columns, 3) or (frames, rows, columns).
        kind: Photometric interpretation.
        bits: Stored, where they are not all.
        patient: PatientID; None leaves it out.
        syntax: Transfer syntax that the file claims.
        compress: Whether the pixels are compressed so.
        tags: Others, by keyword.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        claimed = UID(ExplicitVRLittleEndian if compress else syntax)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.826.0.1.3680043.8.498.1")
    meta.TransferSyntaxUID = claimed
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.PatientName = f"{SECRET}^Anna"
    header.PatientBirthDate = "19700101"
    header.InstitutionName = f"{SECRET} hospital"
    header.StudyDescription = f"{SECRET} study"
    header.PatientComments = SECRET
    if patient is not None:
        header.PatientID = patient
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    frames = pixels.shape[0] if pixels.ndim == 3 and not colour else 1
    rows, columns = pixels.shape[:2] if frames == 1 else pixels.shape[1:3]
    header.Rows, header.Columns = rows, columns
    header.SamplesPerPixel = 3 if colour else 1
    if colour:
        header.PlanarConfiguration = 0
    if frames > 1:
        header.NumberOfFrames = frames
    header.PhotometricInterpretation = kind
    header.BitsAllocated = 8 * pixels.dtype.itemsize
    header.BitsStored = bits or header.BitsAllocated
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    body = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    header.PixelData = (
        encapsulate([body]) if claimed.is_transfer_syntax and claimed.is_encapsulated else body
    )
    header["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    sink = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in tags.items():
            setattr(header, keyword, value)
        if compress:
            header.compress(UID(syntax), encoding_plugin="pydicom")
        header.save_as(sink)
    return sink.getvalue()


def smooth(low: float, high: float, dtype: Any = np.int16) -> NDArray[Any]:
    """Numbers from low to high, shape (16, 16)."""
    return np.rint(np.linspace(low, high, 256).reshape(16, 16)).astype(dtype)
