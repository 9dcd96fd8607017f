#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made corpus of fuzz_tokenizer: prompts behind a zero byte, SentencePiece files behind a one."""
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "tokenizer")
PLAIN, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def write(name, data):
    os.makedirs(HERE, exist_ok=True)
    with open(os.path.join(HERE, f"seed-{name}"), "wb") as f:
        f.write(data)


def prompt(name, text):
    write(name, b"\0" + (text if isinstance(text, bytes) else text.encode()))


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def message(number, body):
    return varint(number << 3 | 2) + varint(len(body)) + body


def flag(number, value):
    return varint(number << 3) + varint(value)


def piece(text, score=-1.0, kind=PLAIN):
    return message(1, message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + flag(3, kind))


IDS = piece("<pad>", 0, CONTROL) + piece("</s>", 0, CONTROL) + piece("<unk>", 0, UNKNOWN)
UNIGRAM = message(2, flag(3, 1))
SWITCHES = message(3, message(1, b"identity") + flag(3, 1) + flag(4, 0) + flag(5, 1))


def model(name, *parts):
    write(name, b"\1" + b"".join(parts))


prompt("plain", "a red fox, running")
prompt("references", "&amp;amp;lt; &EACUTE; &notit; &#x80; &#0; &#x110000; &; &#;\n<b> &amp;amp;")
prompt("width", "ＡＢＣ，１！　猫 ｶﾞ ﾡ ￣ \ufb01 ŉ ǆ")
prompt("controls", "\x1b[3;4mhi\x1b[0m\x07 \r\n\u2028x\u2029\x85 \ufeff\u206a \u201cq\u2019")
prompt("marks", "cafe\u0301 q\u0323\u0307 \u1100\u1161\u11a8 \u0958")
prompt("bad", b"x\xed\xa0\x80y")
model("small", IDS, piece("▁", -2), piece("a", -3), piece("cat", -4), piece("▁c", -3, USER), UNIGRAM, SWITCHES)
model("bytes", IDS, piece("▁", -2), *[piece(f"<0x{i:02X}>", 0, BYTE) for i in range(256)],
      message(2, flag(3, 1) + flag(35, 1)), SWITCHES)
model("unused", IDS, piece("▁", -2), piece("x", -2, UNUSED), UNIGRAM, SWITCHES, flag(9, 7) + varint(9 << 3 | 1) + bytes(8))
model("charsmap", IDS, piece("▁", -2), UNIGRAM, message(3, message(2, struct.pack("<I", 1 << 30) + bytes(9)) + flag(3, 1)))
model("selftest", IDS, piece("▁", -2), UNIGRAM, SWITCHES, message(4, message(1, message(1, b"a") + message(2, b"b"))))
model("bpe", IDS, piece("▁", -2), message(2, flag(3, 2)), SWITCHES)
model("nan", IDS, piece("▁", float("nan")), UNIGRAM, SWITCHES)
model("twice", IDS, piece("▁", -2), piece("</s>", -2), UNIGRAM, SWITCHES)
model("cut", IDS, message(1, b"abc")[:-1])
