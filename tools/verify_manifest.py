"""Verify a safegen dataset with Python's standard library alone; to be read before it is trusted.

    python verify_manifest.py FOLDER [--key PUBLIC.pem ...]

Exit code 0: every byte is what the manifest says, and with --key one of these keys signed it.
4: not so; each problem on a line. It knows nothing of the rows: `safegen verify --deep` reads them.

docs/manifest.md is the specification; its clauses are named [in brackets]. What is here is, in
order: RFC 8785 (canonical JSON), RFC 8032 (Ed25519), RFC 6962 (Merkle trees), and the checks.
"""

import argparse
import base64
import hashlib
import json
import os
import stat
import sys
from collections import Counter
from decimal import Decimal

MANIFEST, SIGNATURE = "safegen.manifest.json", "safegen.manifest.dsse.json"
MOST_BYTES, MOST_FILES, MOST_SIGNATURES = 64 * 2**20, 1_000_000, 32


class Bad(Exception):
    """What makes a dataset one that does not verify."""


# ---- RFC 8785: one way to write a JSON document --------------------------------------------------


def canonical(value) -> str:
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        if abs(value) >= 2**53:
            raise Bad("an integer that JSON readers would round")
        return str(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    names = sorted(value, key=lambda name: name.encode("utf-16-be"))
    return "{" + ",".join(f"{canonical(n)}:{canonical(value[n])}" for n in names) + "}"


def number(value: float) -> str:
    """As ECMAScript writes it: the shortest digits that read back, a point or an exponent."""
    if value != value or value in (float("inf"), float("-inf")):
        raise Bad("a number that JSON has no form for")
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    point = len(digits) + exponent  # digits before the decimal point
    if len(text) <= point <= 21:
        text += "0" * (point - len(text))
    elif 0 < point <= 21:
        text = f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{text}"
    else:
        text = f"{text[0]}{'.' * (len(text) > 1)}{text[1:]}e{point - 1:+d}"
    return "-" * sign + text


def parsed(data: bytes, what: str):
    """The object that canonical bytes stand for, and nothing that two readers read differently."""
    if len(data) > MOST_BYTES:
        raise Bad(f"{what} is larger than {MOST_BYTES:,} bytes")
    try:
        document = json.loads(data.decode("utf-8"))
        same = canonical(document).encode("utf-8") == data
    except (ValueError, RecursionError):
        raise Bad(f"{what} is not JSON") from None
    if not same or not isinstance(document, dict):
        raise Bad(f"{what} is not canonical JSON (RFC 8785): it was edited or re-formatted")
    return document


# ---- RFC 8032: Ed25519, the verifying half -------------------------------------------------------

P, Q = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def add(a, b):
    """The sum of two points, in extended coordinates (X, Y, Z, T)."""
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(scalar: int, point):
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point, scalar = add(point, point), scalar >> 1
    return total


def point_of(data: bytes):
    y = int.from_bytes(data, "little")
    odd, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        raise Bad("a point that is none")
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and odd):
        raise Bad("a point that is none")
    x = P - x if x & 1 != odd else x
    return x, y, 1, x * y % P


BASE = point_of((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def signed(key: bytes, message: bytes, signature: bytes) -> bool:
    if len(signature) != 64 or (s := int.from_bytes(signature[32:], "little")) >= Q:
        return False
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    try:
        right = add(
            point_of(signature[:32]), times(int.from_bytes(digest, "little") % Q, point_of(key))
        )
    except Bad:
        return False
    left = times(s, BASE)
    return all((left[i] * right[2] - right[i] * left[2]) % P == 0 for i in (0, 1))


def public_key(path: str) -> tuple[str, bytes]:
    """A key's id, which is the SHA-256 of its DER bytes, and the key."""
    with open(path, encoding="ascii") as stream:
        lines = stream.read(65_536).split("\n")
    try:
        start, end = (lines.index(f"-----{w} PUBLIC KEY-----") for w in ("BEGIN", "END"))
        der = base64.b64decode("".join(lines[start + 1 : end]), validate=True)
    except ValueError:
        raise Bad(f"{path}: not a PEM public key") from None
    if len(der) != 44 or der[:12] != bytes.fromhex("302a300506032b6570032100"):
        raise Bad(f"{path}: not an Ed25519 key")
    return hashlib.sha256(der).hexdigest(), der[12:]


# ---- RFC 6962: a tree over parts of a file -------------------------------------------------------


def tree(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + tree(leaves[:half]) + tree(leaves[half:])).digest()


# ---- the checks ----------------------------------------------------------------------------------


def digest_of(stream, length: int, start: bytes = b"") -> str:
    digest = hashlib.sha256(start)
    while length > 0 and (chunk := stream.read(min(length, 2**20))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def file_problems(folder: str, entry: dict):
    """[C.3] size and SHA-256; [C.4] row groups and their tree."""
    name, size = entry["path"], entry["bytes"]
    with open(os.path.join(folder, name), "rb") as stream:
        if (there := os.fstat(stream.fileno()).st_size) != size:
            yield f"{name}: has {there:,} bytes, the manifest says {size:,}"
            return
        if "sha256:" + digest_of(stream, size) != entry["sha256"]:
            yield f"{name}: content differs from the manifest (SHA-256)"
            return
        if entry.get("merkle_root") is None:
            return
        stream.seek(end := 0)
        leaves = []
        for i, group in enumerate(entry["row_groups"]):
            length = group["offset"] + group["bytes"] - end  # what is between belongs to the next
            leaves.append(digest_of(stream, length, b"\x00"))
            end += length
            if leaves[-1] != group["leaf"]:
                yield f"{name}: row group {i} differs from the manifest"
        leaves.append(digest_of(stream, size - end, b"\x00"))
        if tree([bytes.fromhex(leaf) for leaf in leaves]).hex() != entry["merkle_root"]:
            yield f"{name}: the Merkle root differs from the manifest"


def plain(path: str) -> bool:
    """[C.2] Whether a path stays in the folder, whatever system it is read on."""
    parts = path.split("/")
    return not {"", ".", ".."} & set(parts) and "\\" not in path and "\x00" not in path


def there(folder: str):
    """The files under a folder, as the manifest would name them. Raises: Bad for a link."""
    found = []
    for root, folders, files in os.walk(folder, onerror=_raised):
        for name in folders + files:
            path = os.path.join(root, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                found.append(os.path.relpath(path, folder).replace(os.sep, "/"))
            elif not stat.S_ISDIR(mode):
                raise Bad(f"{path}: a link, or no file; a dataset holds plain files only")
        if len(found) > MOST_FILES:
            raise Bad(f"more than {MOST_FILES:,} files")
    return set(found) - {MANIFEST, SIGNATURE}


def _raised(error: OSError):
    raise error


def signature_problems(data: bytes, manifest: dict, keys: dict[str, bytes]):
    """[D] An in-toto statement of this manifest in a DSSE envelope, by one of the keys."""
    envelope = parsed(data, SIGNATURE)
    subjects = [
        {"name": f["path"], "digest": {"sha256": f["sha256"].removeprefix("sha256:")}}
        for f in manifest["files"]
    ]
    scheme, _, rows = manifest["logical_digest"].rpartition(":")
    content = {"safegenRows2" if scheme.endswith("-v2") else "safegenRows1": rows}
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [*subjects, {"name": "logical", "digest": content}],
        "predicateType": "urn:safegen:dataset-manifest:v1",
        "predicate": manifest,
    }
    kind, payload = "application/vnd.in-toto+json", canonical(statement).encode("utf-8")
    if envelope["payloadType"] != kind or base64.b64decode(envelope["payload"]) != payload:
        yield "the signature is not of this manifest"
        return
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    if len(envelope["signatures"]) > MOST_SIGNATURES:
        raise Bad(f"more than {MOST_SIGNATURES} signatures")
    known = [one for one in envelope["signatures"] if one["keyid"] in keys]
    for one in known:
        if not signed(keys[one["keyid"]], message, base64.b64decode(one["sig"])):
            yield f"the signature by key {one['keyid'][:16]} does not verify"
    if not known:
        yield "signed by a key that is not known here; name it with --key"


def problems_of(folder: str, keys: dict[str, bytes]):
    with open(os.path.join(folder, MANIFEST), "rb") as stream:
        manifest = parsed(stream.read(MOST_BYTES + 1), MANIFEST)
    if manifest["schema"] != "safegen.manifest/v1":  # [A.2]
        raise Bad("a schema that is not known here: it reads safegen.manifest/v1")
    body = {name: value for name, value in manifest.items() if name != "digest"}
    if hashlib.sha256(canonical(body).encode()).hexdigest() != manifest["digest"][7:]:  # [B.1]
        raise Bad("the manifest was edited: its self-digest does not match its content")
    named = Counter(f["path"] for f in manifest["files"])
    found = there(folder)
    yield from (f"{n}: not a path that a manifest may name" for n in named if not plain(n))
    yield from (f"{n}: named twice" for n, times_ in named.items() if times_ > 1)
    yield from (f"{n}: missing" for n in sorted(set(named) - found))
    yield from (f"{n}: not in the manifest" for n in sorted(found - set(named)))
    for entry in manifest["files"]:
        if entry["path"] in found:
            yield from file_problems(folder, entry)
    try:
        with open(os.path.join(folder, SIGNATURE), "rb") as stream:
            yield from signature_problems(stream.read(MOST_BYTES + 1), manifest, keys)
    except FileNotFoundError:
        if keys:
            yield "not signed"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("folder")
    arguments.add_argument("--key", action="append", default=[], help="a public key (PEM)")
    given = arguments.parse_args()
    try:
        keys = dict(map(public_key, given.key))
        problems = list(problems_of(given.folder, keys))
    except (Bad, OSError) as error:
        problems = [str(error)]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        problems = ["a document that is not of the form that docs/manifest.md says"]
    for problem in problems:
        print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in problem), file=sys.stderr)
    if not problems:
        signed_ = "SIGNED by a key that you named" if keys else "UNSIGNED: a rewrite of all of it "
        print(f"verified; {signed_}{'' if keys else 'together would not be noticed'}")
    return 4 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
