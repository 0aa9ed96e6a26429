"""What image files say of themselves: marks of generators, honest twins, and junk."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from safegen.lineage.marks import RING, Marks
from safegen.tables.image_metadata import MAX_UNPACKED, metadata_of
from safegen.tables.images import PNG, encoded_images, image_column

SECRET = "a portrait of Jane Roe, 4711 Elm Street"
SETTINGS = f"{SECRET}\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
NODES = json.dumps({"3": {"class_type": "KSampler", "inputs": {"text": SECRET}}})
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def xmp(inner: str) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{inner}</rdf:RDF></x:xmpmeta>'.encode()


def source_type(kind: str) -> bytes:
    return xmp(f'<rdf:Description Iptc4xmpExt:DigitalSourceType="{IPTC}{kind}"/>')


def picture(format_: str, **more: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format_, **more)
    return sink.getvalue()


def png(keyword: str, text: str, how: str = "tEXt") -> bytes:
    info = PngInfo()
    if how == "iTXt":
        info.add_itxt(keyword, text, zip=True)
    else:
        info.add_text(keyword, text, zip=how == "zTXt")
    return picture("PNG", pnginfo=info)


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG file with one chunk more."""
    plain = picture("PNG")
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return plain[:33] + struct.pack(">I", len(body)) + kind + body + crc + plain[33:]


def exif(tag: int, value: object) -> Image.Exif:
    found = Image.Exif()
    if tag == 0x9286:  # UserComment stands in a directory of its own
        found.get_ifd(0x8769)[tag] = value
    else:
        found[tag] = value
    return found


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def manifest(source: str, label: bytes = b"c2pa") -> bytes:
    """A JUMBF box as C2PA has it, with a thumbnail before what it says."""
    described = box(b"jumd", label[:4].ljust(16, b"\x00") + b"\x03" + label + b"\x00")
    said = box(b"cbor", b"\xa1" + f"digitalSourceType{IPTC}{source}".encode())
    return box(b"jumb", described + box(b"bfdb", b"\xff\xd8\xff" + bytes(100_000)) + said)


def signed_jpeg(boxes: bytes) -> bytes:
    """A JPEG file with a box in as many APP11 packets as it takes."""
    plain, found, payload = picture("JPEG"), b"", boxes[8:]
    for number in range(-(-len(payload) // 60_000)):
        part = payload[60_000 * number : 60_000 * (number + 1)]
        body = b"JP\x00\x01" + struct.pack(">I", number + 1) + boxes[:8] + part
        found += b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body
    return plain[:2] + found + plain[2:]


MARKED: dict[str, tuple[bytes, str]] = {
    "web UI": (png("parameters", SETTINGS), "settings of Stable Diffusion in a text (parameters)"),
    "web UI, packed": (png("parameters", SETTINGS, "zTXt"), "settings of Stable Diffusion"),
    "web UI, international": (png("parameters", SETTINGS, "iTXt"), "settings of Stable Diffusion"),
    "web UI, JPEG": (
        picture("JPEG", exif=exif(0x9286, b"UNICODE\x00" + SETTINGS.encode("utf-16-be"))),
        "settings of Stable Diffusion in EXIF",
    ),
    "ComfyUI": (png("prompt", NODES), "settings of ComfyUI in a text (prompt)"),
    "ComfyUI, workflow": (png("workflow", json.dumps({"nodes": []})), "settings of ComfyUI"),
    "InvokeAI": (
        png("invokeai_metadata", json.dumps({"positive_prompt": SECRET})),
        "settings of InvokeAI",
    ),
    "NovelAI": (png("Software", "NovelAI"), "NovelAI named in a text (software)"),
    "source": (png("Source", "Stable Diffusion XL 9866"), "Stable Diffusion named in a text"),
    "Midjourney": (
        png("Description", f"{SECRET} Job ID: 0a1b2c3d-4e5f-6789-abcd-ef0123456789"),
        "a job of Midjourney in a text",
    ),
    "EXIF": (picture("JPEG", exif=exif(0x0131, "DALL·E 3")), "DALL-E named in EXIF"),
    "EXIF, WebP": (picture("WEBP", exif=exif(0x0131, "ComfyUI")), "ComfyUI named in EXIF"),
    "XMP, PNG": (
        png("XML:com.adobe.xmp", source_type("trainedAlgorithmicMedia").decode(), "iTXt"),
        "a trained model as their DigitalSourceType",
    ),
    "XMP, JPEG": (
        picture("JPEG", xmp=source_type("compositeWithTrainedAlgorithmicMedia")),
        "a trained model as their DigitalSourceType",
    ),
    "XMP, WebP": (
        picture("WEBP", xmp=source_type("trainedAlgorithmicMedia")),
        "a trained model as their DigitalSourceType",
    ),
    "XMP, tool": (
        picture("JPEG", xmp=xmp("<xmp:CreatorTool>Adobe Firefly 3</xmp:CreatorTool>")),
        "Adobe Firefly named as their tool",
    ),
    "C2PA, PNG": (
        chunk(b"caBX", manifest("trainedAlgorithmicMedia")),
        "names trained models, and is damaged",  # no signature in it is sound
    ),
    "C2PA, JPEG": (
        signed_jpeg(manifest("trainedAlgorithmicMedia")),
        "names trained models, and is damaged",
    ),
}

HONEST: dict[str, bytes] = {
    "plain": picture("PNG"),
    "title": png("Title", "Stable Diffusion: a talk, with ComfyUI and Midjourney"),
    "software": png("Software", "Adobe Photoshop 25.0 (Macintosh)"),
    "parameters": png("parameters", "Steps: seven, threshold 0.4"),
    "prompt": png("prompt", "Describe your holiday"),
    "workflow": png("Workflow", "scanned, cropped, archived"),
    "description": png("Description", "Job ID: 17, a stable surface for diffusion studies"),
    "camera": picture("JPEG", exif=exif(0x010F, "NIKON CORPORATION"), comment=b"at the lake"),
    "camera, comment": picture("JPEG", exif=exif(0x9286, b"ASCII\x00\x00\x00steps to the lake")),
    "XMP": picture("JPEG", xmp=source_type("digitalCapture")),
    "XMP, tool": picture("JPEG", xmp=xmp("<xmp:CreatorTool>GIMP 2.10</xmp:CreatorTool>")),
    "algorithmic": picture("JPEG", xmp=source_type("algorithmicMedia")),
    "another box": signed_jpeg(manifest("trainedAlgorithmicMedia", b"j360")),
}


def marks_of(*files: bytes, column: Callable[[list[bytes]], pa.Array] | None = None) -> Marks:
    made = (column or (lambda f: image_column(f, [None] * len(f))))(list(files))
    batch = pa.RecordBatch.from_arrays([made], ["x"])
    marks = Marks(batch.schema)
    marks(batch)
    return marks


@pytest.mark.parametrize("name", MARKED)
def test_a_mark_of_a_generator_is_told_and_no_word_of_its_text(name: str) -> None:
    data, said = MARKED[name]
    pieces = marks_of(data, HONEST["plain"], data).evidence()
    assert pieces
    assert any(said in p.text for p in pieces)
    for piece in pieces:
        assert piece.text.startswith("2 images with ")
        assert (piece.ring, piece.origin, piece.share, piece.proof) == (RING, "unknown", 0, False)
        assert not {"jane", "roe", "portrait", "elm", "4711"} & set(piece.text.lower().split())


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_twin_has_no_mark(name: str) -> None:
    assert not marks_of(HONEST[name]).evidence()


@pytest.mark.parametrize("wrap", [lambda b: chunk(b"caBX", b), signed_jpeg], ids=["PNG", "JPEG"])
def test_a_camera_that_signs_is_told_and_is_no_mark(wrap: Callable[[bytes], bytes]) -> None:
    (piece,) = marks_of(wrap(manifest("digitalCapture"))).evidence()
    assert piece.ring == "c2pa"
    assert piece.text == (
        "1 image with a C2PA manifest that names no trained model; its signature was not checked"
    )


def test_marks_are_found_in_any_cell_with_files() -> None:
    data, _ = MARKED["ComfyUI"]
    for column in (
        lambda files: pa.array(files),
        lambda files: pa.array([[{"file": f}] for f in files]),
    ):
        assert marks_of(data, column=column).evidence()


def test_a_text_that_unpacks_without_end_is_unpacked_so_far() -> None:
    bomb = b"parameters\x00\x00" + zlib.compress(bytes(50_000_000))
    (found,) = metadata_of(chunk(b"zTXt", bomb))
    assert len(found.data) == MAX_UNPACKED


@given(
    st.sampled_from([d for d, _ in MARKED.values()] + list(HONEST.values())),
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 255)), max_size=20),
    st.integers(0, 10**6),
)
def test_damaged_files_are_read_as_far_as_they_go(
    data: bytes, changes: list[tuple[int, int]], end: int
) -> None:
    damaged = bytearray(data[:end])
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    marks_of(bytes(damaged)).evidence()


@given(st.sampled_from([PNG, b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP"]), st.binary())
def test_junk_is_no_error(start: bytes, rest: bytes) -> None:
    assert sum(len(part.data) for part in metadata_of(start + rest)) <= len(rest) + MAX_UNPACKED


def test_released_images_have_no_mark_of_others() -> None:
    files = encoded_images(np.zeros((2, 8, 8, 3), dtype=np.uint8))
    assert not marks_of(*files).evidence()
