"""The models that lie in the wheels of pyproject.toml's dependency group "models", and inputs of varied shapes for them."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np

FOLDER = Path(sys.prefix) / "models"
VAD = "silero_vad/data/silero_vad"
OCR = "rapidocr_onnxruntime/models/ch_"
MODELS = {
    "file_type": "magika/models/standard_v3_3/model.onnx",
    "text_boxes": OCR + "PP-OCRv4_det_infer.onnx",
    "text_angle": OCR + "ppocr_mobile_v2.0_cls_infer.onnx",
    "text_line": OCR + "PP-OCRv4_rec_infer.onnx",
    "speech": VAD + ".onnx",
    "speech_opset_15": VAD + "_16k_op15.onnx",
    "speech_no_if": VAD + "_op18_ifless.onnx",
    "speech_half": VAD + "_half.onnx",
    "speech_fixed": VAD + "_openvino_16k.onnx",
    "speech_sequence": VAD + "_16k_sequence.onnx",
}
# What `batchmill check` says of each: whether rows are batched, and how the reason begins.
BATCHED = "proved: rows run together equal rows run alone"
CHECKED = {
    **dict.fromkeys(("file_type", "text_boxes", "text_angle", "text_line"), (True, BATCHED)),
    **dict.fromkeys(("speech", "speech_opset_15", "speech_half"), (False, 'the first axis of "state" is not free')),    # it is axis 1 that counts callers there
    "speech_no_if": (False, 'the first axis of "sr" is not free'),
    "speech_fixed": (False, 'the first axis of "input" is not free'),
    "speech_sequence": (False, 'the first axis of "h" is not free'),
}
WINDOW, CONTEXT = 512, 64   # samples at 16 kHz that the speech models hear at once, and those of the window before that come with them


def unpack(registry: Path) -> None:
    """Writes the models as a registry."""
    found = sorted(FOLDER.glob("*.whl"))
    assert found, f"no wheels in {FOLDER}: make models-test brings them"
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            entries = set(archive.namelist())
            for name, entry in MODELS.items():
                if entry in entries:
                    path = registry / name / "1" / "model.onnx"
                    path.parent.mkdir(parents=True)
                    path.write_bytes(archive.read(entry))


def feeds(name: str, random: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Some inputs of a model, no two of one shape."""

    def noise(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / 2).astype(np.float32)

    if name == "file_type":
        return [{"bytes": random.integers(0, 257, (rows, 2048)).astype(np.int32)} for rows in (1, 2, 5)]
    if name == "text_boxes":
        return [{"x": noise(rows, 3, height, width)} for rows, height, width in ((1, 64, 96), (2, 32, 160), (1, 192, 128))]
    if name == "text_line":
        return [{"x": noise(rows, 3, 48, width)} for rows, width in ((1, 100), (3, 48), (1, 320))]
    if name == "text_angle":
        return [{"x": noise(rows, 3, 48, 192)} for rows in (1, 2, 3)]
    state = {"state": noise(2, 1, 128)}
    if name == "speech_half":
        return [{"input": noise(rows, WINDOW + CONTEXT), "state": noise(2, rows, 128)} for rows in (1, 4)]
    if name == "speech_fixed":
        return [{"input": noise(1, WINDOW + CONTEXT)} | state]
    if name == "speech_sequence":
        return [{"input": noise(windows, WINDOW + CONTEXT), "h": noise(1, 1, 128), "c": noise(1, 1, 128)} for windows in (1, 7)]
    rate = {"sr": np.array(16000, np.int64)}    # a scalar
    given = [{"input": noise(rows, WINDOW + CONTEXT), "state": noise(2, rows, 128)} | rate for rows in (1, 3)]
    half = {"input": noise(1, (WINDOW + CONTEXT) // 2), "sr": np.array(8000, np.int64)} | state
    return given if name == "speech_opset_15" else [*given, half]


def file_types() -> list[str]:
    """What the classes of file_type are named."""
    (wheel,) = FOLDER.glob("magika-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names: list[str] = json.loads(archive.read("magika/models/standard_v3_3/config.min.json"))["target_labels_space"]
    return names
