"""Damage of files that keeps so much of their structure that it gets past the first check."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DEEP = "deep"
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 7, 255, 2**31, 2**63, -(2**63) - 1, 10**15, 10**18, 10**40,
    0.5, -0.0, 1e308, float("nan"), float("inf"), "", "0", "NaN", "X", "../y", "\0", "\ud800",
    "é" * 300, "x" * 100_000, [], {}, [[]], [0], [0, 0], [10**12, 3], [-1, 3], ["a", "b"], {"a": 1},
    [1, 2, 3, 4, 5, 6, 7, 8], DEEP,
]  # fmt: off
DTYPES = [
    "|O", "<f4", ">f8", "<f2", "|b1", "<i8", "|u1", "<U5", "|S3", "<M8[s]", "<c8", "|V8", "<f16",
    "object", "float64", "float16", "complex64", "string", "bfloat16", "int4", "r24", "<U999999999",
    [["a", "<f4"]], "structured", "fixed_length_utf32", "variable_length_bytes", "",
]  # fmt: off
CODECS: list[Any] = [
    {"id": "pickle"}, {"id": "vlen-utf8"}, {"id": "zlib", "level": 1}, {"id": "blosc"},
    {"id": "json2"}, {"id": "msgpack2"}, {"id": "categorize", "labels": ["a"], "dtype": "O"},
    {"id": "fixedscaleoffset", "offset": 0, "scale": 0, "dtype": "f4", "astype": "i1"},
    {"id": "delta", "dtype": "<O"}, {"id": "astype", "encode_dtype": "O", "decode_dtype": "O"},
    {"id": "packbits"}, {"id": "base64"}, {"id": "lz4"}, {"id": "zfpy"}, {"id": "no such"},
    {"name": "numcodecs.pickle", "configuration": {}}, {"name": "numcodecs.zlib"},
    {"name": "bytes", "configuration": {"endian": "big"}}, {"name": "transpose"},
    {"name": "transpose", "configuration": {"order": [1, 0]}}, {"name": "vlen-utf8"},
    {"name": "gzip", "configuration": {"level": 5}}, {"name": "crc32c"}, {"name": "blosc"},
    {"name": "zstd", "configuration": {"level": 10**6, "checksum": "no"}},
    {"name": "sharding_indexed", "configuration": {"chunk_shape": [0, 0], "codecs": []}},
    {"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 1], "codecs": [
        {"name": "bytes"}, {"name": "numcodecs.pickle"}], "index_codecs": [{"name": "bytes"}]}},
]  # fmt: off
Random = random.Random


class Attack:
    """Unpickled, it makes the canary."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["FUZZ_CANARY"],)


def pickled() -> bytes:
    return pickle.dumps(Attack())


def flipped(random: Random, content: bytes) -> bytes:
    """Damage bytes: flip, cut, extend, move, overwrite, repeat."""
    data = bytearray(content)
    for _ in range(random.choice([1, 1, 1, 2, 5, 20])):
        if not data:
            break
        at = random.randrange(len(data))
        size = random.choice([1, 2, 4, 8, 64, len(data)])
        match random.randrange(9):
            case 0 | 1 | 2:
                data[at] ^= 1 << random.randrange(8)
            case 3:
                del data[at:]
            case 4:
                data += random.randbytes(size % 5000)
            case 5:
                data[at : at + size] = b"\xff" * len(data[at : at + size])
            case 6:
                data[at : at + size] = b"\0" * len(data[at : at + size])
            case 7:
                del data[at : at + size % 100]
            case 8:
                data[at:at] = data[at : at + size]
    return bytes(data)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def confused(random: Random, content: bytes) -> bytes:
    """Damage JSON: other types, lost or repeated keys, huge numbers, deep nests, codecs, dtypes."""
    if random.random() < 0.15:
        return flipped(random, content)
    tree = json.loads(content)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        places = list(_places(tree))
        if not places:
            break
        # Large records, as of a history, would else get all of it.
        near = [place for place in places if isinstance(place[1], str)]
        holder, key = random.choice(near if near and random.random() < 0.7 else places)
        match random.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[f"{key}_"] = holder.pop(key)
            case 2:
                other, there = random.choice(places)
                if there in (other if isinstance(other, dict) else range(len(other))):
                    holder[key] = json.loads(json.dumps(other[there]))
            case _:
                holder[key] = _odd(random, key, holder[key])
    text = json.dumps(tree)
    text = text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
    if random.random() < 0.05:
        text = text[:-1] + ', "shape": [1], "zarr_format": 2}'
    return text.encode()


def _odd(random: Random, key: Any, value: Any) -> Any:
    if key in ("codecs", "filters", "index_codecs"):
        found = list(value) if isinstance(value, list) else []
        found.insert(random.randint(0, len(found)), random.choice(CODECS))
        return found
    if key in ("compressor", "name", "id", "configuration") and random.random() < 0.7:
        codec = random.choice(CODECS)
        return codec.get(key, codec) if isinstance(codec, dict) else codec
    if key in ("dtype", "data_type") and random.random() < 0.8:
        return random.choice(DTYPES)
    if isinstance(value, int) and random.random() < 0.3:
        return value + random.choice([-1, 1, 2**31, 10**6])
    return random.choice(ODD)


def npy(header: str, data: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return a file of NumPy with any header."""
    text = header.encode("latin1", "replace")
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text + data


def damaged_npy(random: Random, content: bytes) -> bytes:
    """Damage a file of NumPy, mostly its header."""
    if random.random() < 0.3:
        return flipped(random, content)
    if random.random() < 0.1:
        stream = io.BytesIO()
        np.save(stream, np.array([Attack()] * 40, dtype=object), allow_pickle=True)
        return stream.getvalue()
    shape = random.choice(
        ["(40, 3)", "(10**15,)", "(1000000000000000, 3)", "(-1, 3)", "(0, 3)", "(40,)", "()",
         "(40, 0)", "(40, 3, 1)", "40", "'a'", "(40.0, 3)", "(True, 3)", "(9223372036854775808,)",
         "(" + "1," * 70 + ")", "(40, 4611686018427387904)", "[40, 3]"]
    )  # fmt: off
    descr = random.choice(
        ["'<f8'", "'|O'", "'<U1000000000'", "[('a', '<f8')]", "'|V0'", "1", "'',"]
    )
    order = random.choice(["False", "False", "True", "'no'"])
    descr = descr if random.random() < 0.5 else "'<f8'"
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    match random.randrange(6):
        case 0:
            header += " " * random.choice([9_000, 60_000])
        case 1:
            header = "(" * 5_000 + header
        case 2:
            return npy(header, content[128:], (3, 0))[:8] + b"\xff\xff\xff\x3f" + content[64:]
        case 3:
            return npy("{'a': " * 900 + "1" + "}" * 900, content[128:], (2, 0))
    return npy(header + "\n", content[128:] if random.random() < 0.8 else pickled(), (1, 0))


def damaged_zip(
    random: Random, content: bytes, of_member: Callable[[Random, bytes], bytes]
) -> bytes:
    """Damage an archive: its bytes, a member within a sound archive, or what is said of one."""
    how = random.random()
    if how < 0.3:
        return flipped(random, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    if how < 0.8:
        name = random.choice(list(members))
        members[name] = of_member(random, members[name])
    stream = io.BytesIO()
    with zipfile.ZipFile(
        stream, "w", random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    ) as out:
        for name, data in members.items():
            out.writestr(name, data)
            if random.random() < 0.03:
                out.writestr(f"../{name}", data)
    data = bytearray(stream.getvalue())
    if how >= 0.8:  # flags (encrypted), checksum, sizes or the way of compression of a member
        starts = [at for at in range(len(data)) if data[at : at + 4] in (b"PK\3\4", b"PK\1\2")]
        at = random.choice(starts)
        data[at + random.choice([6, 8, 10, 14, 16, 18, 20, 22, 24])] ^= random.choice([1, 2, 255])
    return bytes(data)


def damaged_csv(random: Random, content: bytes) -> bytes:
    """Damage a table of text."""
    lines = content.split(b"\n")
    at = random.randrange(len(lines))
    match random.randrange(10):
        case 0:
            lines[at] += random.choice([b",", b'"', b"\0", b",1,2,3", b"\r", b"\xff\xfe"])
        case 1:
            lines[at] = b"x" * random.choice([100_000, 3_000_000]) + b"," + lines[at]
        case 2:
            lines[at] = b'"' + lines[at]
        case 3:
            lines[at] = lines[at].replace(b"1", random.choice([b"1e999", b"\0", b"nan", b"", b"-"]))
        case 4:
            lines[0] = random.choice([b"", b"y", b"a,a,a,y", b",,,", b"\0,b,c,y", lines[0] * 3])
        case 5:
            lines = [b",".join(b"f%d" % i for i in range(3_000)) + b",y", b"1," * 3_000 + b"a"]
        case 6:
            lines = lines[: random.randint(0, 2)]
        case _:
            return flipped(random, content)
    return b"\n".join(lines)


def damaged_parquet(random: Random, content: bytes) -> bytes:
    """Damage a table, half of the time what its footer says."""
    if random.random() < 0.5:
        return flipped(random, content)
    size = int.from_bytes(content[-8:-4], "little")
    footer = flipped(random, content[-8 - size : -8])
    length = len(footer) if random.random() < 0.7 else random.choice([0, 2**31 - 1, 2**32 - 1])
    return content[: -8 - size] + footer + length.to_bytes(4, "little") + b"PAR1"


def damaged_toml(random: Random, content: bytes) -> bytes:
    """Damage a run file."""
    lines = content.split(b"\n")
    keys = [index for index, line in enumerate(lines) if b" = " in line]
    key = lines[random.choice(keys)].split(b" = ")[0]
    odd = [
        b"1", b"-1", b"0", b"1e400", b"nan", b"inf", b"true", b'""', b'"a\\u0000b"', b"[]", b"{}",
        b"[1, 2]", b'"' + b"x" * 100_000 + b'"', b"[" * 5_000 + b"]" * 5_000, b"1979-05-27",
        b"9" * 400, b'"/dev/zero"', b'"~nobody/x"', b'"no://where"', b'"' + b"a/" * 3_000 + b'"',
        b'"auto"', b'"newton"', b"99999999999999999999", b"[[1]]", b'"2 GiB"', b"1e-300",
    ]  # fmt: off
    match random.randrange(6):
        case 0:
            return flipped(random, content)
        case 1:
            lines.append(
                random.choice([b"[a]\nb = 1", b"x = 1", b"[model]", b"[[data]]", b"=", b"["])
            )
        case _:
            lines[random.choice(keys)] = key + b" = " + random.choice(odd)
    return b"\n".join(lines)


def one_of(random: Random, folder: Path, pattern: str) -> Path:
    """Return a file of a folder."""
    return random.choice(sorted(path for path in folder.rglob(pattern) if path.is_file()))
