"""Content credentials: made, read by C2PA's own reader, and what others signed or forged."""

from __future__ import annotations

import builtins
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safegen.errors import MissingExtra
from safegen.lineage.image_marks import Claims
from safegen.lineage.in_band import InBand
from safegen.lineage.marks import Marks
from safegen.manifest import new_key
from safegen.manifest.certificate import new_certificate
from safegen.tables.credentials import FILE, PNG_FILE, ContentSigner, read_credential
from safegen.tables.image_metadata import MAX_BYTES
from safegen.tables.images import (
    encoded_images,
    image_column,
    png_chunks,
    stamp_of,
    with_stamp,
    without_stamp,
)

STAMP = {"dataset_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "origin": "synthetic", "depth": 1.0}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "ours"
    new_key(path)
    new_certificate(path, "Acme Data")
    return path


@pytest.fixture(scope="module")
def signer(key: Path) -> ContentSigner:
    return ContentSigner.of(key)


def picture(seed: int = 0, side: int = 16) -> bytes:
    rng = np.random.default_rng(seed)
    return encoded_images(rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8))[0]


def read(data: bytes, anchors: str | None = None) -> Any:
    return read_credential(io.BytesIO(data), PNG_FILE, anchors=anchors)


def boxes(data: bytes) -> bytes:
    """The C2PA manifest in a PNG file."""
    [(start, end)] = [(a, b) for a, b, kind in png_chunks(data) if kind == b"caBX"]
    return data[start + 8 : end - 4]


def carrying(data: bytes, manifest: bytes) -> bytes:
    """A PNG file with a C2PA manifest put into it."""
    body = b"caBX" + manifest
    chunk = struct.pack(">I", len(manifest)) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


# ---- made ----------------------------------------------------------------------------------------


def test_c2pas_own_reader_trusts_what_leads_to_the_authority(
    key: Path, signer: ContentSigner
) -> None:
    """Without a line of ours: its reader, and its words for what it finds."""
    data = signer.embedded(with_stamp(picture(), STAMP), STAMP)
    trust = {"trust": {"trust_anchors": Path(f"{key}.ca.crt").read_text()}}
    states = {}
    for name, settings in (("ours", trust), ("nobody's", {})):
        with (
            c2pa.Context(settings=c2pa.Settings.from_dict(settings)) as context,
            c2pa.Reader("image/png", io.BytesIO(data), context=context) as reader,
        ):
            states[name] = reader.get_validation_state()
            document = json.loads(reader.json())
    said = document["manifests"][document["active_manifest"]]
    assert states == {"ours": "Trusted", "nobody's": "Valid"}
    assertions = {a["label"]: a["data"] for a in said["assertions"]}
    [action] = assertions["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    )
    assert assertions["safegen.stamp"] == STAMP
    [generator] = said["claim_generator_info"]
    assert generator["name"] == "safegen"
    assert generator["version"] == action["softwareAgent"]["version"]
    assert said["signature_info"]["common_name"] == "Acme Data"
    assert said["claim_version"] == 2


def test_an_image_is_the_same_content_with_and_without(signer: ContentSigner) -> None:
    plain = picture()
    one, two = (signer.embedded(with_stamp(plain, STAMP), STAMP) for _ in range(2))
    assert one != two  # a signature is another each time
    assert without_stamp(one) == without_stamp(two) == plain
    assert stamp_of(one) == STAMP


@pytest.mark.parametrize("change", ["pixel", "stamp", "moved"])
def test_a_credential_is_of_one_file_alone(signer: ContentSigner, change: str) -> None:
    data = signer.embedded(with_stamp(picture(), STAMP), STAMP)
    assert read(data).holds
    if change == "pixel":
        changed = bytearray(data)
        changed[-20] ^= 1
        data = bytes(changed)
    elif change == "stamp":
        data = data.replace(b'"depth": 1.0', b'"depth": 9.0')
    else:
        data = carrying(picture(1), boxes(data))
    found = read(data)
    assert (found.holds, found.trained, found.state) == (False, True, "Invalid")


def test_a_file_of_rows_has_one_beside_it(key: Path, signer: ContentSigner, tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    path.write_bytes(os.urandom(100_000))
    manifest = signer.beside(path, STAMP)
    assert b"trainedAlgorithmicData" in manifest
    anchors = Path(f"{key}.ca.crt").read_text()
    with path.open("rb") as file:
        found = read_credential(file, FILE, manifest, anchors=anchors)
    assert found is not None
    assert (found.holds, found.trained, found.state) == (True, True, "Trusted")
    changed = bytearray(path.read_bytes())
    changed[50_000] ^= 1
    found = read_credential(io.BytesIO(changed), FILE, manifest, anchors=anchors)
    assert found is not None
    assert (found.holds, found.state) == (False, "Invalid")


def test_what_cannot_be_signed_is_an_error_and_never_comes_back_unsigned(
    signer: ContentSigner,
) -> None:
    with pytest.raises(ValueError, match="failed"):
        signer.embedded(b"no image", STAMP)


# ---- read ----------------------------------------------------------------------------------------


def told(*files: bytes) -> tuple[int, list[str]]:
    """Rows that count as made by a model, and the marks in the others."""
    batch = pa.record_batch({"image": image_column(list(files), [None] * len(files))})
    claims = Claims()
    tally, marks = InBand(batch.schema, claims), Marks(batch.schema, claims)
    tally(batch)
    marks(batch)
    return tally.synthetic, [e.text for e in marks.evidence()]


def test_an_image_of_others_that_says_so_soundly_is_synthetic(signer: ContentSigner) -> None:
    made = signer.embedded(picture(), {})  # no stamp of ours
    assert told(made, picture(1), made) == (2, [])


def test_a_composite_is_synthetic_and_a_photograph_is_not(signer: ContentSigner) -> None:
    def signed(kind: str, form: str = "png") -> bytes:
        claim = {
            "claim_generator_info": [{"name": "a camera"}],
            "assertions": [
                {
                    "label": "c2pa.actions.v2",
                    "data": {
                        "actions": [
                            {
                                "action": "c2pa.created",
                                "digitalSourceType": "http://cv.iptc.org/newscodes/"
                                f"digitalsourcetype/{kind}",
                            }
                        ]
                    },
                }
            ],
        }
        plain, sink = io.BytesIO(), io.BytesIO()
        Image.open(io.BytesIO(picture())).save(plain, form)
        with c2pa.Builder(claim, context=signer._context) as builder:
            builder.sign(signer._signer, f"image/{form}", plain, sink)
        return sink.getvalue()

    for form in ("png", "jpeg", "webp"):
        made = signed("compositeWithTrainedAlgorithmicMedia", form)
        assert told(made) == (1, [])
        changed = bytearray(made)
        changed[-3] ^= 1
        assert told(bytes(changed))[0] == 0
    count, marks = told(signed("digitalCapture"))
    assert count == 0
    assert marks == [
        "1 image with a C2PA manifest that names no trained model; its signature was not checked"
    ]


def test_a_credential_that_is_of_another_image_proves_nothing_and_is_a_doubt(
    signer: ContentSigner,
) -> None:
    moved = carrying(picture(1), boxes(signer.embedded(picture(), STAMP)))
    assert told(moved) == (
        0,
        [
            "1 image with a C2PA manifest that names trained models, and is damaged or of another "
            "file"
        ],
    )


def test_without_the_library_it_is_a_doubt(
    signer: ContentSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = signer.embedded(picture(), {})
    plain = builtins.__import__

    def missing(name: str, *more: Any, **others: Any) -> Any:
        if name == "c2pa":
            raise ImportError(name)
        return plain(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert told(made) == (
        0,
        ["1 image with a C2PA manifest that names trained models; its signature was not checked"],
    )
    with pytest.raises(MissingExtra, match=r"safegen\[c2pa\]"):
        read(made)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def nested(depth: int) -> bytes:
    """Boxes within boxes, each named as C2PA's."""
    head = box(b"jumd", b"c2pa".ljust(16, b"\x00") + b"\x03c2pa\x00")
    sizes = [(depth - i) * (8 + len(head)) for i in range(depth)]
    return b"".join(struct.pack(">I", size) + b"jumb" + head for size in sizes)


SAYS = b"trainedAlgorithmicMedia"
FORGED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda real: SAYS,
    "cut": lambda real: real[:-700],
    "lying size": lambda real: b"\xff\xff\xff\xff" + real[4:],
    "no size": lambda real: b"\x00\x00\x00\x00" + real[4:],
    "nested": lambda real: nested(15_000) + SAYS,
    "arrays in arrays": lambda real: real.replace(SAYS, b"\x81" * len(SAYS)) + SAYS,
    "endless text": lambda real: real.replace(b"digitalSourceType", b"\x7b" + b"\xff" * 16) + SAYS,
    "twice": lambda real: real + real,
}


@pytest.mark.parametrize("name", FORGED)
def test_a_malformed_manifest_is_a_doubt_and_no_crash(signer: ContentSigner, name: str) -> None:
    forged = FORGED[name](boxes(signer.embedded(picture(), STAMP)))
    assert len(forged) < MAX_BYTES
    data = carrying(picture(), forged)
    count, marks = told(data)
    found = read(data)
    # Of the outermost box the library takes what is there, whatever size it states: all is there.
    assert found.holds is (name == "lying size")
    assert (count, len(marks)) == ((1, 0) if found.holds else (0, 1))


@pytest.mark.parametrize(
    "manifest",
    [SAYS + bytes(MAX_BYTES), bytes(MAX_BYTES) + SAYS, box(b"brob", b"packed")],
    ids=["giant", "said at the end", "packed"],
)
def test_what_is_too_large_or_packed_is_not_parsed(
    manifest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was given to the library")

    monkeypatch.setattr("safegen.lineage.image_marks.read_credential", parsed)
    assert told(carrying(picture(), manifest)) == (
        0,
        ["1 image with a C2PA manifest that is packed or too large to be read"],
    )


_SIGNED: list[bytes] = []


@given(
    st.lists(st.tuples(st.integers(0, 3_500), st.integers(0, 255)), min_size=1, max_size=12),
    st.integers(0, 10**4),
)
def test_whatever_is_changed_in_an_image_nothing_crashes(
    signer: ContentSigner, changes: list[tuple[int, int]], end: int
) -> None:
    if not _SIGNED:
        _SIGNED.append(signer.embedded(with_stamp(picture(), STAMP), STAMP))
    damaged = bytearray(_SIGNED[0][:end])
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    told(bytes(damaged))
    read(bytes(damaged))
