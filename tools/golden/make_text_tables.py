#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the reference makes of odd prompts: tables for tests/unit/{clean,tokenizer}_test.c.

    tools/golden/make_text_tables.py --out tests/data/text                            # the committed ones
    tools/golden/make_text_tables.py --out /tmp/t --seed 7 --rows 20000 && build/tests/unit/clean_test /tmp/t

Writes spiece.model (a small tokenizer with UMT5's switches, byte pieces and two user-defined pieces), clean.json
([[prompt, cleaned], ...]) and tokens.json ([[prompt, ids with the end token, pieces that did not fit], ...]).
Cleaning is diffusers' prompt_clean, ids are those of Hugging Face's tokenizers.  Prompts that only ftfy's guess at wrong
encodings changes are left out: wan does not guess.

Needs ftfy 6.3.1, sentencepiece and tokenizers from PyPI.
"""
import argparse
import html
import io
import json
import os
import random
import re

import ftfy
import sentencepiece
import tokenizers

TEXT_LEN = 512
WORDS = """a an the on in over under with near by of to from red green blue golden black small big old young quick slow
happy quiet bright dark fox cat dog bird horse robot child woman man dancer river forest mountain city street beach night
runs walks jumps dances sleeps flies turns spins left right up down forward slowly close shot wide view cinematic style
café naïve façade Zürich crème brûlée Ærø 猫 犬 走る 日本 東京 空 雪 кот собака снег ёлка 고양이 바다 🙂 🚀 ☃
. , ! ? ' " - : ; ( ) < > & 0 1 2 3 24 ABC XYZ""".split()
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'\"-:;()<>&"
BY_HAND = ["", " \t\n ", "cafe\u0301 nai\u0308ve", "\u201cthe cat\u2019s hat\u201d \u02bcold\u02bc", "ＡＢＣ，１２３！　猫 ｶﾞ ﾡ ￣",
           "cat &amp; dog &lt;b&gt; caf&#233; &amp;amp;amp; &quot;x&quot;", "1 < 2 &amp;amp; &NTILDE;\n&NTILDE; &amp;amp;amp;lt;",
           "a\n&NTILDE; &SZLIG; &FFLIG; &FRAC12;\nb <i> &NTILDE;", "&notit; &notin; &not &nGt; &lt &LT;x&ampamp;",
           "&#x80; &#128; &#0; &#xD800; &#x110000; &#99999999999; &#1; &#x3b; &#59 &#; &#x; &;", "\x1b[1;31mred\x1b[0m \x1b[x",
           "\x1b[\x1b[1m2m \x1b[\u0663m \x1b[1", "a\r\nb\rc\u2028d\u2029e\x85f\x0bg\x0ch", "\ufb01re \ufb02ies \ufb05 ŉ ǆ Ǳ ĳ æ",
           "\u206ax\ufeffy\ufff9z\ufffc \u200b \u200d", "\u1100\u1161\u11a8 \u0958 \u2126 \u212b q\u0323\u0307 q\u0307\u0323",
           "\x80\x8d\x91\x9f", "\xa0a\xa0\xa0b\u2003\u3000c\x1c", "\uff06amp\uff1b &#65286;amp;", "é" * 600, "cat " * 511, "cat " * 512,
           "a </s> b", "a</s>b<unk><pad> <s>x", "<unk>🦊🦊<unk>🦊 🦊", "▁a ▁▁b a▁b", "[eod][web] [eod]", "𠀋𡈽 <0x41>", "</s", "<extra_id_7>"]


def prompt_clean(text, guess=True):
    """diffusers' pipelines, prompt_clean; `guess` False leaves out the one step that wan leaves out."""
    text = ftfy.fix_text(text, explain=False, fix_encoding=guess)
    text = html.unescape(html.unescape(text)).strip()
    return re.sub(r"\s+", " ", text).strip()


def odd_piece(r):
    """A few characters of the kind that some step of cleaning changes."""
    names = [n for n in html.entities.html5]
    low = [n for n in names if n.endswith(";") and n == n.lower()]
    span = r.choice([(1, 0x250), (1, 0x3100), (1, 0xD800), (0xE000, 0x20000)])
    return r.choice([
        lambda: r.choice(WORDS) + " ",
        lambda: chr(r.randrange(32, 127)),
        lambda: chr(r.randrange(*span)),
        lambda: chr(r.randrange(0x300, 0x370)),
        lambda: chr(r.randrange(0xFF00, 0xFFFE)),
        lambda: chr(r.choice([0x132, 0x133, 0x149, *range(0x1C4, 0x1F4), *range(0xFB00, 0xFB50)])),
        lambda: r.choice("\r\n\u2028\u2029\x85\x1b[;0123mAK&#x;<>\u3000\u02bc\u2018\u201c\u201f\xa0\u2003\u200b\ufeff\u206a"),
        lambda: "&" + r.choice(names),
        lambda: "&" + r.choice(low).upper(),
        lambda: "&#" + r.choice([str(r.randrange(300)), "x%x" % r.randrange(0x110000), "X%X" % r.randrange(300)]) + r.choice(";; "),
        lambda: "&" + r.choice(["amp;", "lt;", "nbsp;", "amp", "not", "notit;", "AMP", "#38;", "gt"]),
    ])()


def odd_prompt(r):
    return "".join(odd_piece(r) for _ in range(r.randrange(1, 20)))


def word_prompt(r, pieces):
    """Words, pieces and fragments of them, unknown characters, markers written out."""
    def part():
        return r.choice([
            lambda: r.choice(pieces).replace("▁", " "),
            lambda: r.choice(pieces).replace("▁", " "),
            lambda: " " + r.choice(WORDS),
            lambda: r.choice(WORDS)[:3],
            lambda: chr(r.randrange(33, 127)),
            lambda: r.choice("猫犬走日本снегкот고양이🙂🚀☃\U0002000bé㍿🦊ß"),
            lambda: r.choice(["<s>", "</s>", "<unk>", "<pad>", "▁", "  ", "</", "s>"]),
        ])()
    return "".join(part() for _ in range(r.randrange(1, 40)))


def train(seed, bos, byte_pieces):
    r = random.Random(seed)
    lines = [" ".join(r.choice(WORDS) for _ in range(r.randint(3, 14))) for _ in range(1500)]
    ids = dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3) if bos else dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="unigram", hard_vocab_limit=False,
        vocab_size=360 + 256 * byte_pieces, character_coverage=1.0, byte_fallback=byte_pieces,
        user_defined_symbols=["[eod]", "[web]"], normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, required_chars=LETTERS, num_threads=1, minloglevel=2, **ids)
    return out.getvalue()


def reference(spiece):
    """The tokenizer of transformers 4 over the pieces of a SentencePiece model."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=spiece)
    ids = range(sp.vocab_size())
    t = tokenizers.Tokenizer(tokenizers.models.Unigram([(sp.id_to_piece(i), sp.get_score(i)) for i in ids],
                                                       unk_id=sp.unk_id(), byte_fallback=False))
    t.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    t.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    t.add_special_tokens([tokenizers.AddedToken(sp.id_to_piece(i), special=True, normalized=False) for i in ids
                          if sp.is_control(i) or sp.is_unknown(i)])
    return t, [sp.id_to_piece(i) for i in ids if not sp.is_byte(i)]


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--rows", type=int, default=300, help="random prompts in each table (default 300)")
    args = p.parse_args()
    r = random.Random(args.seed)
    os.makedirs(args.out, exist_ok=True)

    rows, guessed = [], 0
    for text in BY_HAND + [odd_prompt(r) for _ in range(args.rows)]:
        clean = prompt_clean(text)
        if clean == prompt_clean(text, guess=False):
            rows.append([text, clean])
        else:
            guessed += 1
    write_rows(os.path.join(args.out, "clean.json"), rows)
    print(f"clean.json: {len(rows)} prompts, {guessed} left out for what ftfy guesses")

    odd_seed = args.seed % 2 == 1
    spiece = train(args.seed, bos=odd_seed, byte_pieces=odd_seed)
    with open(os.path.join(args.out, "spiece.model"), "wb") as f:
        f.write(spiece)
    tokenizer, pieces = reference(spiece)
    rows = []
    for text in BY_HAND + [word_prompt(r, pieces) for _ in range(args.rows)]:
        if prompt_clean(text) != prompt_clean(text, guess=False):
            continue
        ids = tokenizer.encode(prompt_clean(text), add_special_tokens=False).ids
        rows.append([text, ids[:TEXT_LEN - 1] + [1], max(0, len(ids) - TEXT_LEN + 1)])
    write_rows(os.path.join(args.out, "tokens.json"), rows)
    print(f"tokens.json: {len(rows)} prompts, {len(pieces)} pieces without bytes")


if __name__ == "__main__":
    main()
