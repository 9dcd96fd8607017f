#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes golden tensors: what the reference (diffusers, CPU, float32) answers at every stage of a Wan2.2-TI2V model.

    make_golden.py random --seed 1 --out DIR [--original] [--gguf] [--set dit.heads=2 ...]
    make_golden.py model --from MODEL_DIR --out DIR [--prompt TEXT] [--image PNG] [--guidance G] [--skip CASE ...]
    make_golden.py pack --ckpt FOLDER --out DIR [--original] [--gguf]

`random` first writes a tiny model with random weights to DIR/model (diffusers layout) and, on request, the very same
weights in the original Wan layout (DIR/original) and as GGUF (DIR/gguf).  `random` and `model` then load the model back from
disk, run each stage, and write DIR/golden/NAME.safetensors (inputs and expected outputs together) and
DIR/golden/manifest.json (which `wan` command to run for each file, what to compare, how closely).
check_golden.py reads that manifest.  Names and shapes of the tensors: ../spec/stages.md.  `pack` only arranges loose
checkpoints (the demo model's) as a model directory that `model` can read; other layouts become folders inside it.

Read the class Reference below to see what each stage is; the rest is preparation and book-keeping.

Needs torch, diffusers, transformers, tokenizers, sentencepiece, safetensors, ftfy, pillow, and gguf for --gguf.
"""
import argparse
import contextlib
import copy
import fnmatch
import hashlib
import io
import json
import math
import os
import random
import re
import shlex
import sys
import types

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import diffusers
import ftfy  # noqa: F401  diffusers cleans prompts differently without it, so insist on it
import numpy as np
import PIL.Image
import safetensors
import sentencepiece
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from diffusers import (AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler,
                       WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel)
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from diffusers.video_processor import VideoProcessor
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

TEXT_LEN = 512          # rows of text the transformer always sees
Q8_BLOCK = 32           # elements that share one scale in GGUF's Q8_0
LOSSLESS = True         # refuse to store a weight in a type that changes it; trained models (`pack`) cannot ask for that


# ------------------------------------------------------------------------------------------------ random configuration

# The Wan2.2 VAE of the real model: in the original layout nobody stores these, programs know them by heart.
REAL_MEAN = [-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
             0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
             -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
             -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667]
REAL_STD = [0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
            0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
            0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
            0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744]


def draw_config(seed, overrides):
    """All the numbers of a tiny model, from a seed; `overrides` ("dit.heads=2") replace what was drawn."""
    r = random.Random(seed)
    c = {
        "dit.heads": r.choice([1, 2, 3, 4]),
        "dit.head_dim": r.choice([10, 16, 20, 24, 32, 36, 44, 64]),     # any even number from 6 on works with RoPE
        "dit.layers": r.randint(1, 4),
        "dit.ffn_dim": r.choice([r.randrange(40, 200, 2), 32 * r.randint(2, 6)]),
        "dit.freq_dim": r.choice([256, 256, 128, 200]),
        "text_dim": r.choice([32, 40, 48, 64]),
        "te.layers": r.randint(1, 3),
        "te.heads": r.randint(2, 5),
        "te.d_kv": r.choice([8, 12, 16, 20]),
        "te.d_ff": r.randrange(48, 150, 2),
        "z": r.choice([4, 8, 16, 48]),
        "vae.base_dim": r.choice([4, 6, 8]),
        "vae.decoder_base_dim": r.choice([5, 7]),
        # the shortcut without resampling at the last level wants out to divide in
        "vae.dim_mult": r.choice([[1, 2, 4, 4], [1, 2, 4, 4], [1, 1, 2, 2], [2, 2, 4, 4], [1, 2, 4, 2]]),
        "vae.num_res_blocks": r.randint(1, 3),
        "vae.real_stats": False,                # latents_mean/std of the real model; wants z = 48
        "tokenizer.umt5_ids": r.random() < 0.5,  # pad 0, eos 1, bos 2, unk 3 like UMT5; otherwise pad 0, eos 1, unk 2
        "tokenizer.byte_pieces": False,
        "flow_shift": r.choice([3.0, 5.0, 8.0]),
        "dtype.transformer": r.choice(["F32", "BF16", "mixed"]),
        "dtype.text_encoder": r.choice(["F32", "BF16"]),
        "dtype.vae": r.choice(["F32", "BF16", "F16"]),
        "shards": r.choice([1, 1, 2, 3]),
        # sizes of the test inputs, in latents (frames, rows, columns)
        "size.dit": [r.randint(2, 4), 2 * r.randint(2, 4), 2 * r.randint(2, 5)],
        "size.clip": [r.choice([2, 3]), 2 * r.randint(1, 2), 2 * r.randint(1, 3)],
    }
    for item in overrides:
        key, _, value = item.partition("=")
        if key not in c:
            raise SystemExit(f"--set {item}: no such key; keys are {', '.join(c)}")
        try:
            c[key] = json.loads(value)
        except ValueError:
            c[key] = value
    if c["text_dim"] == c["dit.heads"] * c["dit.head_dim"]:
        c["text_dim"] += 8
    return c


def model_configs(c, vocab, rng):
    """The three constructor dictionaries: transformer, text encoder, VAE."""
    dit = dict(patch_size=[1, 2, 2], num_attention_heads=c["dit.heads"], attention_head_dim=c["dit.head_dim"],
               in_channels=c["z"], out_channels=c["z"], text_dim=c["text_dim"], freq_dim=c["dit.freq_dim"],
               ffn_dim=c["dit.ffn_dim"], num_layers=c["dit.layers"], cross_attn_norm=True,
               qk_norm="rms_norm_across_heads", eps=1e-6)
    te = dict(vocab_size=vocab, d_model=c["text_dim"], d_kv=c["te.d_kv"], num_heads=c["te.heads"], d_ff=c["te.d_ff"],
              num_layers=c["te.layers"], feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
              dropout_rate=0.0, relative_attention_num_buckets=32, relative_attention_max_distance=128,
              layer_norm_epsilon=1e-6, pad_token_id=0, eos_token_id=1)
    if c["vae.real_stats"]:
        mean, std = REAL_MEAN, REAL_STD
    else:
        mean = [round(rng.uniform(-0.6, 0.6), 4) for _ in range(c["z"])]
        std = [round(rng.uniform(0.4, 1.8), 4) for _ in range(c["z"])]
    vae = dict(base_dim=c["vae.base_dim"], decoder_base_dim=c["vae.decoder_base_dim"], z_dim=c["z"],
               dim_mult=c["vae.dim_mult"], num_res_blocks=c["vae.num_res_blocks"], attn_scales=[],
               temperal_downsample=[False, True, True], dropout=0.0, is_residual=True, in_channels=12, out_channels=12,
               patch_size=2, scale_factor_temporal=4, scale_factor_spatial=16, latents_mean=mean, latents_std=std)
    return dit, te, vae


# ---------------------------------------------------------------------------------------------------- random weights
# Every weight is a number that float32, bfloat16, float16 and, for the matrices that GGUF quantises, Q8_0 all hold
# exactly.  So the same goldens are right for every file type, and an error is an error of arithmetic, not of storage.

def exact16(t):
    """Nearest value that both bfloat16 and float16 can hold."""
    return t.to(torch.bfloat16).to(torch.float16).to(torch.float32)


def exact_q8(w):
    """Nearest-ish value of the form 2^k * q, |q| <= 127, one k per 32 elements of a row and one |q| = 127 in each.

    Q8_0 then finds the scale 2^k and the codes q again without loss, and 7 bits of q fit in bfloat16."""
    if w.shape[-1] % Q8_BLOCK:
        return exact16(w)
    b = w.reshape(-1, Q8_BLOCK)
    top, at = b.abs().max(1, keepdim=True)
    scale = torch.exp2(torch.round(torch.log2(top / 127)))
    q = torch.round(b / scale).clamp(-127, 127)
    q.scatter_(1, at, 127 * torch.sign(b.gather(1, at)))
    return (q * scale).reshape(w.shape)


def fill(module, rng, rule):
    """Gives every parameter a random value; rule(name, shape) -> (mean, standard deviation)."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            mean, std = rule(name, tuple(p.shape))
            v = torch.from_numpy(rng.standard_normal(p.shape).astype(np.float32))
            if p.dim() == 2 and name.endswith("weight"):
                if p.shape[1] % Q8_BLOCK == 0:      # let the block scales differ, so that a misplaced scale shows
                    v.view(-1, Q8_BLOCK).mul_(torch.from_numpy(
                        np.exp2(rng.integers(-1, 2, (p.numel() // Q8_BLOCK, 1))).astype(np.float32)))
                    std /= 1.3
                p.copy_(exact_q8(mean + std * v))
            else:
                p.copy_(exact16(mean + std * v))


def dit_rule(name, shape):
    if name.endswith("scale_shift_table"):
        return 0.0, 0.35
    if ".norm_q." in name or ".norm_k." in name:
        # sharp cross-attention, or the few words of a prompt drown in 500 rows of padding
        return (1.9 if ".attn2." in name else 1.2), 0.25
    if ".norm2." in name:
        return (1.0 if name.endswith("weight") else 0.0), 0.2
    if name.endswith("bias"):
        return 0.0, 0.15
    gain = 2.0 if ".ffn.net.2." in name else 1.0    # loud enough to tell the two kinds of GELU apart
    return 0.0, gain / math.sqrt(np.prod(shape[1:]))


def te_rule(d_model, d_kv, heads, d_ff):
    def rule(name, shape):
        if "layer_norm" in name:
            return 1.0, 0.2
        if "relative_attention_bias" in name:
            return 0.0, 0.8
        if name.endswith("SelfAttention.q.weight"):     # UMT5 has no 1/sqrt(d_kv): it lives in the weights
            return 0.0, 1.5 / math.sqrt(d_model * d_kv)
        if "shared" in name or "embed_tokens" in name:
            return 0.0, 1.0
        return 0.0, 1.0 / math.sqrt(shape[-1])
    return rule


def vae_rule(name, shape):
    if name.endswith("gamma"):
        return 1.0, 0.2
    if name.endswith("bias"):
        return 0.0, 0.1
    gain = 1.3
    if "conv_out" in name:
        gain = 0.6          # decoded values mostly inside [-1, 1], some clamped
    if "to_qkv" in name or "conv_in" in name or "quant_conv" in name:
        gain = 1.0
    return 0.0, gain / math.sqrt(np.prod(shape[1:]))


# --------------------------------------------------------------------------------------------------------- tokenizer

WORDS = """a an the and on in over under with near by of to from red green blue golden white black small big old young
quick slow happy quiet bright dark fox cat dog bird horse robot child woman man painter dancer river forest mountain
city street beach garden kitchen window stage castle snow rain storm sunset night morning light shadow camera clip
runs walks jumps dances sleeps flies turns spins glows falls rises moves left right up down forward slowly quickly
close shot wide view cinematic style water fire smoke cloud sky star moon sun wooden glass metal paper car boat train
bridge tower cake bread tea coffee music guitar piano ball kite hat coat boxing gloves spotlight intense
café naïve façade Zürich jalapeño crème brûlée Ærø coöperate 猫 犬 走る 日本 東京 空 雪 花 кот собака снег ёлка 고양이 바다 🙂 🚀 ☃
. , ! ? ' " - : ; ( ) < > & 0 1 2 3 4 5 6 7 8 9 10 24 ABC XYZ""".split()


def train_tokenizer(seed, umt5_ids, byte_pieces):
    """A SentencePiece unigram model over WORDS, with UMT5's switches: no normalisation, spaces kept, "_" in front."""
    r = random.Random(seed * 7919 + 1)
    lines = [" ".join(r.choice(WORDS) for _ in range(r.randint(3, 14))) for _ in range(1500)]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'\"-:;()<>&"
    ids = dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3) if umt5_ids else dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="unigram", hard_vocab_limit=False,
        vocab_size=420 + 256 * byte_pieces, character_coverage=1.0, byte_fallback=byte_pieces,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
        required_chars=letters, num_threads=1, minloglevel=2, **ids)
    return out.getvalue()


class Tokenizer:
    """Prompt -> ids and mask, the way the transformers 4 tokenizer of UMT5 does (column A of spec/text.md 2.2).

    Each answer is held against SentencePiece itself; byte pieces there count as the unknown token here."""

    def __init__(self, spiece):
        self.spiece = spiece
        self.sp = sp = sentencepiece.SentencePieceProcessor(model_proto=spiece)
        if (sp.pad_id(), sp.eos_id()) != (0, 1):
            raise SystemExit(f"tokenizer: pad and eos are {sp.pad_id()}, {sp.eos_id()}, expected 0, 1")
        pieces = [(sp.id_to_piece(i), sp.get_score(i)) for i in range(sp.vocab_size())]
        t = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=sp.unk_id(), byte_fallback=False))
        t.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
        t.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        t.decoder = tokenizers.decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        t.post_processor = tokenizers.processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
        self.hf = PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
                                          model_max_length=TEXT_LEN, padding_side="right")

    def __call__(self, prompt):
        clean = prompt_clean(prompt)
        out = self.hf([clean], padding="max_length", max_length=TEXT_LEN, truncation=True, add_special_tokens=True,
                      return_attention_mask=True, return_tensors="pt")
        ids, mask = out.input_ids[0].to(torch.int32), out.attention_mask[0].to(torch.int32)
        twin = []
        for i in self.sp.encode(clean):
            i = self.sp.unk_id() if self.sp.is_byte(i) else i
            if not (twin and i == twin[-1] == self.sp.unk_id()):
                twin.append(i)
        if ids[:int(mask.sum())].tolist() != twin[:TEXT_LEN - 1] + [1]:
            raise ValueError(f"tokenizers and sentencepiece disagree on {clean!r}")
        return ids, mask

    def save(self, folder):
        self.hf.save_pretrained(folder)
        write_bytes(os.path.join(folder, "spiece.model"), self.spiece)
        path = os.path.join(folder, "tokenizer_config.json")
        conf = json.load(open(path))
        conf["tokenizer_class"] = "T5Tokenizer"
        conf["extra_ids"] = 0
        conf.pop("backend", None)
        write_json(path, conf)
        write_json(os.path.join(folder, "special_tokens_map.json"),
                   {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"})


# ------------------------------------------------------------------------------------------------- writing the model

def write_bytes(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)


def write_json(path, value, **kw):
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, **kw) + "\n").encode())


def cast(name, t, dtype):
    """Storage type of a tensor; "mixed" keeps in F32 what diffusers keeps in F32 when it loads a bfloat16 model."""
    if dtype == "mixed":
        keep = t.dim() == 1 or any(s in name for s in ("scale_shift_table", "time_embedder", "norm", "modulation"))
        dtype = "F32" if keep else "BF16"
    out = t.to({"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}[dtype]).contiguous()
    if LOSSLESS and not torch.equal(out.float(), t):
        raise ValueError(f"{name} is not exact in {dtype}")
    return out


def save_tensors(path, tensors, metadata):
    """save_file, with the metadata in a fixed order (the library's varies), so that the same seed gives the same bytes."""
    save_file(tensors, path, metadata=metadata)
    blob = open(path, "rb").read()
    n = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:8 + n])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    os.chmod(path, 0o644)       # the library writes files only their owner can read
    write_bytes(path, len(text).to_bytes(8, "little") + text + blob[8 + n:])


def write_weights(folder, stem, tensors, dtype, shards=1, meta=None):
    """One safetensors file, or `shards` of them with the index file Hugging Face programs expect."""
    os.makedirs(folder, exist_ok=True)
    tensors = {k: cast(k, v, dtype) for k, v in tensors.items()}
    meta = {"format": "pt", **(meta or {})}
    names = list(tensors)
    shards = min(shards, len(names))
    if shards == 1:
        save_tensors(os.path.join(folder, stem + ".safetensors"), tensors, meta)
        return
    where = {}
    for s in range(shards):
        part = names[s * len(names) // shards:(s + 1) * len(names) // shards]
        file = f"{stem}-{s + 1:05d}-of-{shards:05d}.safetensors"
        save_tensors(os.path.join(folder, file), {k: tensors[k] for k in part}, meta)
        where.update({k: file for k in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    write_json(os.path.join(folder, stem + ".safetensors.index.json"),
               {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))})


def module_config(module, class_name):
    conf = {k: v for k, v in module.config.items() if not k.startswith("_")}
    return {"_class_name": class_name, "_diffusers_version": diffusers.__version__, **conf}


def write_diffusers(root, c, dit, te, vae, tok):
    write_json(os.path.join(root, "model_index.json"), {
        "_class_name": "WanPipeline", "_diffusers_version": diffusers.__version__, "boundary_ratio": None,
        "expand_timesteps": True, "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"]})
    write_json(os.path.join(root, "transformer", "config.json"), module_config(dit, "WanTransformer3DModel"))
    write_weights(os.path.join(root, "transformer"), "diffusion_pytorch_model", dit.state_dict(),
                  c["dtype.transformer"], c["shards"])
    write_json(os.path.join(root, "vae", "config.json"), module_config(vae, "AutoencoderKLWan"))
    write_weights(os.path.join(root, "vae"), "diffusion_pytorch_model", vae.state_dict(), c["dtype.vae"])
    conf = te.config.to_dict()
    conf.update(architectures=["UMT5EncoderModel"], model_type="umt5")
    write_json(os.path.join(root, "text_encoder", "config.json"), conf)
    write_weights(os.path.join(root, "text_encoder"), "model", te_state(te), c["dtype.text_encoder"], c["shards"])
    tok.save(os.path.join(root, "tokenizer"))
    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000,
                            flow_shift=c["flow_shift"]).save_pretrained(os.path.join(root, "scheduler"))


def te_state(te):
    """UMT5 weights under their Hugging Face names, the shared embedding once."""
    return {k: v for k, v in te.state_dict().items() if k != "encoder.embed_tokens.weight"}


def rename(name, rules):
    for old, new in rules:
        name = name.replace(old, new)
    return name


# Order matters where one new name looks like another old one (the norm2 / norm3 swap of the transformer).
DIT_NAMES = [
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("attn1", "self_attn"), ("attn2", "cross_attn"), (".to_out.0", ".o"), (".to_q", ".q"), (".to_k", ".k"),
    (".to_v", ".v"), (".norm2.", ".norm3."), ("ffn.net.0.proj", "ffn.0"), ("ffn.net.2", "ffn.2"),
    ("proj_out", "head.head"),
]


def original_dit(state):
    out = {}
    for k, v in state.items():
        if k == "scale_shift_table":
            out["head.modulation"] = v
        elif k.endswith("scale_shift_table"):
            out[k.replace("scale_shift_table", "modulation")] = v
        else:
            out[rename(k, DIT_NAMES)] = v
    return out


RES_BLOCK = re.compile(r"(encoder|decoder)\.(mid_block|down_blocks\.\d+|up_blocks\.\d+)\.resnets\.(\d+)\.(\w+)\.(\w+)")
RES_PART = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
            "conv_shortcut": "shortcut"}


def original_vae(state, num_res_blocks):
    """Names of Wan2.2_VAE.pth: a level is a list, and its resampler is one more member after the residual blocks."""
    plain = [("post_quant_conv", "conv2"), ("quant_conv", "conv1"), (".conv_in.", ".conv1."),
             (".mid_block.attentions.0.", ".middle.1."), (".norm_out.", ".head.0."), (".conv_out.", ".head.2."),
             (".downsampler.", f".downsamples.{num_res_blocks}."), (".upsampler.", f".upsamples.{num_res_blocks + 1}."),
             (".down_blocks.", ".downsamples."), (".up_blocks.", ".upsamples.")]
    out = {}
    for k, v in state.items():
        m = RES_BLOCK.fullmatch(k)
        if not m:
            out[rename(k, plain)] = v
            continue
        half, place, j, part, leaf = m.groups()
        if place == "mid_block":
            where = f"{half}.middle.{2 * int(j)}"
        else:
            levels = "downsamples" if half == "encoder" else "upsamples"
            where = f"{half}.{levels}.{place.split('.')[1]}.{levels}.{j}"
        out[f"{where}.{RES_PART[part]}.{leaf}"] = v
    return out


TE_ORIGINAL = [("shared.", "token_embedding."), ("encoder.final_layer_norm", "norm"), ("encoder.block.", "blocks."),
               ("layer.0.layer_norm", "norm1"), ("layer.1.layer_norm", "norm2"),
               ("layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"),
               ("layer.0.SelfAttention", "attn"), ("layer.1.DenseReluDense.wi_0", "ffn.gate.0"),
               ("layer.1.DenseReluDense.wi_1", "ffn.fc1"), ("layer.1.DenseReluDense.wo", "ffn.fc2")]
TE_GGUF = [("shared.", "token_embd."), ("encoder.final_layer_norm", "enc.output_norm"), ("encoder.block.", "enc.blk."),
           ("layer.0.layer_norm", "attn_norm"), ("layer.1.layer_norm", "ffn_norm"),
           ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"), ("layer.0.SelfAttention.", "attn_"),
           ("layer.1.DenseReluDense.wi_0", "ffn_gate"), ("layer.1.DenseReluDense.wi_1", "ffn_up"),
           ("layer.1.DenseReluDense.wo", "ffn_down")]


def side_config(dit, vae):
    """config.json of the original layout.  "vae" is ours: what the original program has hard-wired for z = 48."""
    d = dit.config
    return {"_class_name": "WanModel", "model_type": "ti2v", "text_len": TEXT_LEN, "in_dim": d.in_channels,
            "dim": d.num_attention_heads * d.attention_head_dim, "ffn_dim": d.ffn_dim, "freq_dim": d.freq_dim,
            "out_dim": d.out_channels, "num_heads": d.num_attention_heads, "num_layers": d.num_layers, "eps": d.eps,
            "vae": {"latents_mean": vae.config.latents_mean, "latents_std": vae.config.latents_std}}


def vae_meta(vae):
    return {k: json.dumps(vae.config[k]) for k in ("latents_mean", "latents_std")}


def write_original(root, c, dit, te, vae, tok):
    write_json(os.path.join(root, "config.json"), side_config(dit, vae))
    write_weights(root, "diffusion_pytorch_model", original_dit(dit.state_dict()), "mixed", c["shards"])
    write_weights(root, "models_t5_umt5-xxl-enc-bf16",
                  {rename(k, TE_ORIGINAL): v for k, v in te_state(te).items()}, "BF16")
    write_weights(root, "Wan2.2_VAE", original_vae(vae.state_dict(), vae.config.num_res_blocks), "BF16",
                  meta=vae_meta(vae))
    tok.save(os.path.join(root, "google", "umt5-xxl"))


def write_gguf(root, c, seed, dit, te, vae, tok):
    """Transformer and text encoder as GGUF with the storage types of published files, VAE as float16 safetensors."""
    import gguf
    kinds = gguf.GGMLQuantizationType
    other = [kinds.F16, kinds.BF16][seed % 2]       # publishers differ in both of these
    small = [kinds.F32, kinds.F16][(seed // 2) % 2]

    def add(writer, name, t, kind):
        a = t.detach().numpy().astype(np.float32)
        if kind == kinds.F32:
            data = a
        elif kind == kinds.F16:
            data = a.astype(np.float16)
        else:
            data = gguf.quants.quantize(a, kind)
            back = gguf.quants.dequantize(data, kind).reshape(a.shape)
            if LOSSLESS and not np.array_equal(back, a):
                raise ValueError(f"{name} does not survive {kind.name}")
        writer.add_tensor(name, data, raw_dtype=None if kind in (kinds.F32, kinds.F16) else kind)

    def finish(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    os.makedirs(root, exist_ok=True)
    d = dit.config
    w = gguf.GGUFWriter(os.path.join(root, "dit-Q8_0.gguf"), "wan")
    w.add_quantization_version(2)
    w.add_file_type(7)
    w.add_uint32("wan.attention.head_count", d.num_attention_heads)     # ours; published files leave it to config.json
    plain = ("modulation", "patch_embedding", "text_embedding", "time_projection", "time_embedding", "head.")
    for name, t in original_dit(dit.state_dict()).items():
        if name == "patch_embedding.weight":
            kind = kinds.F32                        # five axes, as the ComfyUI-GGUF tools leave it
        elif t.dim() == 1 or "modulation" in name:
            kind = small
        elif any(s in name for s in plain) or t.shape[-1] % Q8_BLOCK:
            kind = other
        else:
            kind = kinds.Q8_0
        add(w, name, t, kind)
    finish(w)

    e = te.config
    w = gguf.GGUFWriter(os.path.join(root, "umt5-Q8_0.gguf"), "t5encoder")
    w.add_quantization_version(2)
    w.add_file_type(7)
    w.add_block_count(e.num_layers)
    w.add_context_length(TEXT_LEN)
    w.add_embedding_length(e.d_model)
    w.add_feed_forward_length(e.d_ff)
    w.add_head_count(e.num_heads)
    w.add_key_length(e.d_kv)
    w.add_value_length(e.d_kv)
    w.add_layer_norm_rms_eps(e.layer_norm_epsilon)
    w.add_relative_attn_buckets_count(e.relative_attention_num_buckets)
    sp, n = tok.sp, tok.sp.vocab_size()
    kind_of = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1 for i in range(n)]
    pad = e.vocab_size - n
    w.add_tokenizer_model("t5")
    w.add_tokenizer_pre("default")
    w.add_token_list([sp.id_to_piece(i) for i in range(n)] + [f"[PAD{n + i}]" for i in range(pad)])
    w.add_token_scores([sp.get_score(i) for i in range(n)] + [-10000.0] * pad)
    w.add_token_types(kind_of + [5] * pad)
    w.add_add_space_prefix(True)
    w.add_remove_extra_whitespaces(False)
    w.add_eos_token_id(1)
    w.add_pad_token_id(0)
    w.add_unk_token_id(sp.unk_id())
    for name, t in te_state(te).items():
        name = rename(name, TE_GGUF)
        if t.dim() == 1 or "attn_rel_b" in name:
            kind = kinds.F32
        else:
            kind = other if t.shape[-1] % Q8_BLOCK else kinds.Q8_0
        add(w, name, t, kind)
    finish(w)

    write_weights(root, "Wan2.2_VAE", original_vae(vae.state_dict(), vae.config.num_res_blocks), "F16",
                  meta=vae_meta(vae))
    write_json(os.path.join(root, "config.json"), side_config(dit, vae))
    write_bytes(os.path.join(root, "spiece.model"), tok.spiece)


def make_random_model(out, seed, c, original, gguf):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    tok = Tokenizer(train_tokenizer(seed, c["tokenizer.umt5_ids"], c["tokenizer.byte_pieces"]))
    spare = 5                                       # embedding rows no piece uses, as in the real model
    dit_c, te_c, vae_c = model_configs(c, tok.sp.vocab_size() + spare, random.Random(seed + 17))
    dit, te, vae = WanTransformer3DModel(**dit_c), UMT5EncoderModel(UMT5Config(**te_c)), AutoencoderKLWan(**vae_c)
    fill(dit, rng, dit_rule)
    fill(te, rng, te_rule(te_c["d_model"], te_c["d_kv"], te_c["num_heads"], te_c["d_ff"]))
    fill(vae, rng, vae_rule)
    write_diffusers(os.path.join(out, "model"), c, dit, te, vae, tok)
    if original:
        write_original(os.path.join(out, "original"), c, dit, te, vae, tok)
    if gguf:
        write_gguf(os.path.join(out, "gguf"), c, seed, dit, te, vae, tok)


# --------------------------------------------------------------------------------------------------------- reference

def read_folder(folder):
    """All tensors of a component folder, sharded or not, as float32."""
    out = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            out.update({k: v.float() for k, v in load_file(os.path.join(folder, file)).items()})
    return out


def read_config(folder):
    return {k: v for k, v in json.load(open(os.path.join(folder, "config.json"))).items() if not k.startswith("_")}


class Reference:
    """A model directory in diffusers layout, one method per stage.  No batch axis in or out."""

    def __init__(self, root):
        self.root = root
        self.dit = WanTransformer3DModel(**read_config(os.path.join(root, "transformer"))).eval().requires_grad_(False)
        self.dit.load_state_dict(read_folder(os.path.join(root, "transformer")))
        self.vae = AutoencoderKLWan(**read_config(os.path.join(root, "vae"))).eval().requires_grad_(False)
        self.vae.load_state_dict(read_folder(os.path.join(root, "vae")))
        self.te = UMT5EncoderModel(UMT5Config(**read_config(os.path.join(root, "text_encoder")))).eval()
        self.te.requires_grad_(False)
        state = read_folder(os.path.join(root, "text_encoder"))
        if "shared.weight" not in state:
            state["shared.weight"] = state["encoder.embed_tokens.weight"]
        state["encoder.embed_tokens.weight"] = state["shared.weight"]
        self.te.load_state_dict(state)
        self.tokenizer = Tokenizer(open(os.path.join(root, "tokenizer", "spiece.model"), "rb").read())
        self.scheduler = json.load(open(os.path.join(root, "scheduler", "scheduler_config.json")))
        self.dtype = torch.float32

    @property
    def channels(self):
        return self.vae.config.z_dim

    @property
    def stride(self):
        return self.vae.config.scale_factor_spatial

    def tokens(self, prompt):
        ids, mask = self.tokenizer(prompt)
        return {"ids": ids, "mask": mask}

    def text(self, ids, mask):
        """[512] ids, [512] mask -> states [512, text_dim].  Rows past the mask are zero, not what the encoder says."""
        states = self.te(ids[None].long(), mask[None].long()).last_hidden_state[0]
        return states * mask[:, None].to(states.dtype)

    def prompt(self, prompt):
        t = self.tokens(prompt)
        return self.text(t["ids"], t["mask"])

    def stats(self):
        """latents_mean and one over latents_std; the pipelines divide by this reciprocal instead of multiplying."""
        shape = (-1, 1, 1, 1)
        mean = torch.tensor(self.vae.config.latents_mean).view(shape).to(self.dtype)
        return mean, 1.0 / torch.tensor(self.vae.config.latents_std).view(shape).to(self.dtype)

    def encode(self, pixels):
        """[3, T, H, W] in [-1, 1] -> latents [C, F, h, w]: the mean of the posterior, normalised."""
        mean, inverse_std = self.stats()
        return (self.vae.encode(pixels[None].to(self.dtype)).latent_dist.mode()[0] - mean) * inverse_std

    def decode(self, latents):
        """latents [C, F, h, w] -> pixels [3, T, H, W], clamped to [-1, 1] by the VAE itself."""
        mean, inverse_std = self.stats()
        return self.vae.decode((latents.to(self.dtype) / inverse_std + mean)[None], return_dict=False)[0][0]

    def velocity(self, x, timestep, states, trace=None):
        """x [C, F, h, w], timestep [F], states [512, text_dim] -> velocity [C, F, h, w].

        As in the TI2V pipelines every token carries the timestep of its frame, so that a known first frame can be
        declared noise-free.  `trace`, a dictionary, receives what happens inside."""
        _, frames, h, w = x.shape
        per_frame = (h // 2) * (w // 2)
        hooks = []
        if trace is not None:
            def embedded(_, __, out):
                trace["patch"] = out[0].flatten(1).T
            def conditioned(_, __, out):
                trace["time"] = out[0][0, ::per_frame]
                trace["time6"] = out[1][0, ::per_frame].unflatten(-1, (6, -1))
                trace["context"] = out[2][0]
            hooks.append(self.dit.patch_embedding.register_forward_hook(embedded))
            hooks.append(self.dit.condition_embedder.register_forward_hook(conditioned))
            for i, block in enumerate(self.dit.blocks):
                def after(_, __, out, i=i):
                    trace[f"block.{i}"] = out[0]
                hooks.append(block.register_forward_hook(after))
        tokens = timestep.repeat_interleave(per_frame)[None]
        out = self.dit(x[None].to(self.dtype), tokens, states[None].to(self.dtype), return_dict=False)[0][0]
        for hook in hooks:
            hook.remove()
        return out

    def guided(self, x, timestep, states, negative, guidance):
        v = self.velocity(x, timestep, states)
        if guidance > 1:
            u = self.velocity(x, timestep, negative)
            v = u + guidance * (v - u)
        return v

    def sample(self, noise, states, negative=None, first=None, sampler="unipc", steps=4, shift=5.0, guidance=1.0,
               renoise=None):
        """The denoising loop.  Returns latents, latents.K after step K (from 0), sigmas, timesteps.

        `first` [C, 1, h, w] is a known first frame: it replaces frame 0 of what the model sees and of every result,
        and its tokens get timestep 0.  diffusers leaves frame 0 of its running state alone and replaces it on the way
        into the model and at the very end; samplers work element by element, so the other frames are the same."""
        def known(x):
            return x if first is None else torch.cat([first.to(x.dtype), x[:, 1:]], dim=1)

        def times(t):
            per_frame = torch.full((noise.shape[1],), float(t))
            if first is not None:
                per_frame[0] = 0.0
            return per_frame

        out = {}
        x = noise.to(self.dtype)
        if sampler.startswith("turbo"):
            sigma, t = turbo_schedule(sampler)
            for i in range(len(t)):
                x = known(x)
                v = self.velocity(x, times(t[i]), states)
                x = known(x - sigma[i] * v)                         # the clean picture this step believes in
                if i + 1 < len(t):                                  # fresh noise, a little less than before
                    x = known((1 - sigma[i + 1]) * x + sigma[i + 1] * renoise[i].to(self.dtype))
                out[f"latents.{i}"] = x
            out["latents"] = x
            return {**out, "sigmas": sigma, "timesteps": t}

        scheduler = make_scheduler(sampler, shift)
        scheduler.set_timesteps(steps)
        for i, t in enumerate(scheduler.timesteps):
            v = self.guided(known(x), times(t), states, negative, guidance)
            x = scheduler.step(v, t, x, return_dict=False)[0]
            out[f"latents.{i}"] = known(x)
        out["latents"] = known(x)
        return {**out, "sigmas": scheduler.sigmas.float(), "timesteps": scheduler.timesteps.float()}


def make_scheduler(sampler, shift):
    if sampler == "unipc":          # order 2, bh2, predicts the clean latent: the pipelines' own
        return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True,
                                       num_train_timesteps=1000, flow_shift=shift)
    if sampler == "euler":          # note that this class applies the shift to the end of its table as well
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    if sampler == "dpm++":
        return OfficialDpm(shift)
    raise ValueError(sampler)


class OfficialDpm:
    """DPM++ 2M of the official program, spec/sampling.md 2.2 and 3.2; our own arithmetic, diffusers has no such table.

    The first level is exactly 1, where log(1 - sigma) is minus infinity: the formulas below live with that."""

    def __init__(self, shift):
        self.shift = shift

    def set_timesteps(self, n):
        u = np.linspace(1, 0, n + 1)[:n]
        s = self.shift * u / (1 + (self.shift - 1) * u)
        self.timesteps = torch.from_numpy((1000 * s).astype(np.int64))          # truncated
        self.sigmas = torch.from_numpy(np.append(s, 0).astype(np.float32))
        self.i, self.before = 0, None

    def step(self, v, t, x, return_dict=False):
        i, n = self.i, len(self.timesteps)
        s = self.sigmas.double()
        lam = torch.log(1 - s) - torch.log(s)                   # minus infinity at sigma 1, infinity at 0
        h = lam[i + 1] - lam[i]
        clean = x - s[i] * v
        d = clean
        if 0 < i < n - 1:                                       # second order; first and last step are first order
            r = (lam[i] - lam[i - 1]) / h
            d = clean + 0.5 * (clean - self.before) / r
        out = (s[i + 1] / s[i]) * x - (1 - s[i + 1]) * torch.expm1(-h) * d
        self.i, self.before = i + 1, clean
        return (out,)


def turbo_schedule(name):
    """(sigmas [5], timesteps [4]) of the two Turbo profiles, spec/sampling.md 7.1 and 7.4; our own arithmetic.

    A table of 1000 noise levels is warped by a shift.  The step list names times; the noise level of a step is that of
    the nearest table entry, and the network is told the time after a round trip through bfloat16 and integers."""
    shift, warp = {"turbo": (5.0, True), "turbo-published": (8.0, False)}[name]
    u = torch.linspace(1, 0, 1001)[:-1]
    table = shift * u / (1 + (shift - 1) * u)
    steps = torch.tensor([1000.0, 750.0, 500.0, 250.0])
    if warp:
        steps = 1000 * shift * (steps / 1000) / (1 + (shift - 1) * (steps / 1000))
    nearest = (1000 * table[None] - steps[:, None]).abs().argmin(1)
    sigmas = torch.cat([table[nearest], torch.zeros(1)])
    return sigmas, steps.to(torch.bfloat16).long().float()


def randn(shape, seed, draws=1):
    """torch.randn on the CPU; with draws > 1 a list of tensors that one generator gives one after the other."""
    g = torch.Generator("cpu").manual_seed(seed)
    out = [torch.randn(shape, generator=g) for _ in range(draws)]
    return out[0] if draws == 1 else out


def to_u8(pixels):
    """[3, T, H, W] in [-1, 1] -> frames u8 [T, H, W, 3] by TRUNCATION: floor(clamp(x / 2 + 1/2, 0, 1) * 255).

    What diffusers' video_processor ("np") followed by export_to_video does, in float32."""
    x = (pixels.float() * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)
    return torch.from_numpy((x.numpy() * 255).astype(np.uint8))


# -------------------------------------------------------------------------------------- how exact is the reference?

def rel_l2(a, b):
    a, b = a.double(), b.double()
    return float((a - b).norm() / max(float(b.norm()), 1e-30))


def u8_gap(a, b):
    """How many values differ, how many by more than one, and how far the mean moved."""
    d = a.double() - b.double()
    return [float((d != 0).double().mean()), float((d.abs() > 1).double().mean()), float(d.mean().abs())]


class Sinusoid64(torch.nn.Module):
    """Timestep features in double: cos(t w_i), then sin(t w_i), w_i = 10000^(-i / half)."""

    def __init__(self, n):
        super().__init__()
        self.half = n // 2

    def forward(self, t):
        w = torch.exp(-math.log(10000.0) * torch.arange(self.half, dtype=torch.float64) / self.half)
        a = t.double()[:, None] * w[None]
        return torch.cat([a.cos(), a.sin()], dim=-1)


@contextlib.contextmanager
def in_double(ref):
    """A copy of `ref` that computes in float64.  The library upcasts to float32 at places; here those go to double."""
    twin = copy.copy(ref)
    twin.dtype = torch.float64
    twin.dit, twin.vae, twin.te = (copy.deepcopy(m).double() for m in (ref.dit, ref.vae, ref.te))
    twin.dit.condition_embedder.timesteps_proj = Sinusoid64(ref.dit.config.freq_dim)

    def rms(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    for m in twin.te.modules():
        if type(m).__name__ == "UMT5LayerNorm":
            m.forward = types.MethodType(rms, m)
    single = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    try:
        yield twin
    finally:
        torch.Tensor.float = single


@contextlib.contextmanager
def rounded_inputs(ref, kind):
    """Rounds what goes into each matrix product and convolution: "bf16", or "q8" (linear layers only, 8-bit codes per
    32 elements, as integer dot products against Q8_0 weights do).  Shows what those short cuts cost.

    "q8" also rounds the weights that write_gguf stores as Q8_0: nothing happens to a random model, whose weights are
    exact, but a trained one loses a little there."""
    def bf16(_, args):
        return (args[0].to(torch.bfloat16).to(args[0].dtype), *args[1:])

    def q8(_, args):
        x = args[0]
        if x.shape[-1] % Q8_BLOCK:
            return None
        b = x.reshape(*x.shape[:-1], -1, Q8_BLOCK)
        d = (b.abs().amax(-1, keepdim=True) / 127).half().to(x.dtype)
        return (torch.where(d > 0, torch.round(b / d) * d, 0 * b).reshape(x.shape), *args[1:])

    kept = {}
    if kind == "q8":
        table = [p for p in ref.te.shared.parameters()]
        weights = [m.weight for part in (ref.dit.blocks, ref.te) for m in part.modules() if isinstance(m, torch.nn.Linear)]
        for w in table + weights:
            if w.shape[-1] % Q8_BLOCK == 0:
                kept[w] = w.detach().clone()
                w.copy_(q8(None, (w.detach(),))[0])
    linear = (torch.nn.Linear,)
    kinds = linear if kind == "q8" else linear + (torch.nn.Conv2d, torch.nn.Conv3d)
    hooks = [m.register_forward_pre_hook(q8 if kind == "q8" else bf16)
             for part in (ref.dit, ref.te, ref.vae) for m in part.modules() if isinstance(m, kinds)]
    try:
        yield ref
    finally:
        for hook in hooks:
            hook.remove()
        for w, before in kept.items():
            w.copy_(before)


class Floors:
    """Runs a stage in float32 for the golden, and again in float64 and with rounded inputs for its tolerances."""

    def __init__(self, ref):
        self.ref = ref

    def __call__(self, stage):
        with torch.no_grad():
            golden = stage(self.ref)
            other = {}
            with in_double(self.ref) as twin:
                other["f32"] = stage(twin)
            for kind in ("bf16", "q8"):
                with rounded_inputs(self.ref, kind):
                    other[kind] = stage(self.ref)
        floor = {k: {name: rel_l2(golden[name], o[name]) if k == "f32" else rel_l2(o[name], golden[name])
                     for name in golden} for k, o in other.items()}
        if "frames" in golden:
            floor["frames"] = {k: u8_gap(o["frames"], golden["frames"]) for k, o in other.items()}
        return golden, floor


# Relative L2 error that an honest float32 program may show.  The floor of the reference itself must stay far below.
TOLERANCE = {"text": 5e-5, "encode": 5e-5, "dit": 5e-5, "decode": 5e-5, "sample": 5e-4, "generate": 5e-4}


def tolerances(stage, floor, name):
    """{"f32", "bf16", "q8"} -> largest allowed relative L2 error of one tensor."""
    out = {"f32": float(f"{max(TOLERANCE[stage], 5 * floor['f32'][name]):.2g}")}
    for kind in ("bf16", "q8"):     # four times the measured effect of rounding the inputs, and never below 1 %
        out[kind] = float(f"{max(0.01, 4 * floor[kind][name], out['f32']):.2g}")
    return out


# --------------------------------------------------------------------------------------------------- golden files

class Goldens:
    """Writes golden files and collects the manifest."""

    def __init__(self, out, seed, skip=()):
        self.out, self.seed, self.skip, self.cases, self.data = out, seed, skip, [], []
        os.makedirs(out, exist_ok=True)

    def versions(self):
        return {m.__name__: m.__version__ for m in (torch, diffusers, transformers, tokenizers, sentencepiece,
                                                   safetensors, np, PIL)} | {"cpu": torch.backends.cpu.get_cpu_capability()}

    def write(self, file, tensors, **meta):
        meta = {"versions": self.versions(), "seed": self.seed, **meta}
        save_tensors(os.path.join(self.out, file), {k: v.contiguous().clone() for k, v in tensors.items()},
                     {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in meta.items()})

    def wanted(self, name):
        return not any(fnmatch.fnmatchcase(name, s) for s in self.skip)

    def case(self, name, stage, file, args, compare):
        self.cases.append({"name": name, "stage": stage, "file": file, "args": args, "compare": compare})

    def staged(self, name, stage, inputs, golden, floor, options=(), note="", skip=()):
        """A stage that reads and writes tensors: one file holds both, and is itself the --in of the command."""
        file = name + ".safetensors"
        args = ["stage", stage, "-m", "{model}", "--in", "{file}", "--out", "{out}", *map(str, options)]
        compare = []
        for k in golden:
            if k in skip:
                continue
            row = {"output": k, "expected": k, "metric": "rel_l2"}
            if k in ("sigmas", "timesteps"):
                row["metric"] = "max_abs"
                row["tolerance"] = 2e-6 if k == "sigmas" else 2e-3
            else:
                row["tolerance"] = tolerances(stage, floor, k)
            compare.append(row)
        self.write(file, {**inputs, **golden}, stage=stage, args=args, note=note,
                   noise_floor=floor["f32"], bf16_inputs=floor["bf16"], q8_inputs=floor["q8"],
                   tolerance={r["output"]: r["tolerance"] for r in compare})
        self.case(name, stage, file, args, compare)

    def manifest(self, **extra):
        write_json(os.path.join(self.out, "manifest.json"),
                   {"about": "cases for check_golden.py; args come after the program name; {model}, {file}, {dir}, {out} "
                             "stand for the model directory, the golden file, this folder, and a scratch output",
                    "seed": self.seed, "versions": self.versions(), **extra, "cases": self.cases, "data": self.data})


def sentence(r, n):
    return " ".join(r.choice(WORDS[:120]) for _ in range(n))


def token_prompts(r):
    """(name, prompt) pairs.  Cleaning (ftfy, entities, white space) is part of the stage."""
    return [
        ("plain", sentence(r, 9)),
        ("empty", ""),
        ("blank", " \t\n "),
        ("spaces", f"  {sentence(r, 3)}\t\n  {sentence(r, 2)}\u00a0 {sentence(r, 2)}  "),
        ("accents", "café in Zürich, naïve façade, crème brûlée"),
        ("decomposed", "cafe\u0301 nai\u0308ve"),
        ("entities", "cat &amp; dog &lt;small&gt; caf&#233; &amp;amp;amp; &quot;bird&quot;"),
        ("quotes", "\u201cthe cat\u2019s hat\u201d \u2018old\u2019"),
        ("width", "ＡＢＣ，１２３！　猫"),
        ("scripts", "日本 猫走る кот, собака снег 고양이 바다"),
        ("emoji", "🙂🙂 🚀 moon ☃"),
        ("ligature", "\ufb01re and \ufb02ies"),
        ("run-on", "redfoxrunsslowlyintothebrightforest.,!?"),
        ("unknown", "fox \U0002000b\U0002127d runs"),
        ("exact-511", " ".join(["cat"] * 511)),
        ("long", sentence(r, 700)),
    ]


def make_tokens(g, ref, r):
    tensors, names, prompts = {}, [], []
    for name, prompt in token_prompts(r):
        try:
            t = ref.tokens(prompt)
        except ValueError as e:     # a tokenizer with rules of its own (normaliser): keep what is beyond dispute
            print(f"tokens: {name} left out: {e}")
            continue
        i = len(names)
        tensors |= {f"ids.{i}": t["ids"], f"mask.{i}": t["mask"]}
        names.append(name)
        prompts.append(prompt)
        g.case(f"tokens-{name}", "tokens", "tokens.safetensors",
               ["stage", "tokens", "-m", "{model}", "-p", prompt, "--out", "{out}"],
               [{"output": k, "expected": f"{k}.{i}", "metric": "equal", "tolerance": 0} for k in ("ids", "mask")])
    g.write("tokens.safetensors", tensors, stage="tokens", names=names, prompts=prompts,
            cleaned=[prompt_clean(p) for p in prompts])


def make_text(g, ref, floors, prompts):
    for name, prompt in prompts:
        t = ref.tokens(prompt)
        golden, floor = floors(lambda m: {"states": m.text(t["ids"], t["mask"])})
        g.staged(f"text-{name}", "text", t, golden, floor, note=f"prompt: {prompt[:200]}")


def smooth_pixels(r, frames, height, width):
    """Something a camera could see: soft moving waves with a little grain, [3, T, H, W] in [-1, 1]."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    planes = []
    for _ in range(3):
        v = sum(np.sin(r.uniform(0.03, 0.3) * x + r.uniform(0.03, 0.3) * y + r.uniform(-0.8, 0.8) * t
                       + r.uniform(0, 6.3)) for _ in range(3)) / 3
        planes.append(v)
    grain = np.random.default_rng(r.randrange(2 ** 31)).normal(0, 0.05, (3, frames, height, width))
    return torch.from_numpy(np.clip(np.stack(planes) + grain, -1, 1).astype(np.float32))


def make_vae(g, ref, floors, r, sizes):
    for name, (frames, h, w) in sizes:
        px = smooth_pixels(r, 4 * (frames - 1) + 1, ref.stride * h, ref.stride * w)
        golden, floor = floors(lambda m: {"latents": m.encode(px)})
        g.staged(f"encode-{name}", "encode", {"pixels": px}, golden, floor)
        z = 0.8 * golden["latents"] + 0.6 * randn(golden["latents"].shape, r.randrange(2 ** 31))
        golden, floor = floors(lambda m: {"pixels": m.decode(z)})
        g.staged(f"decode-{name}", "decode", {"latents": z}, golden, floor)


def make_dit(g, ref, floors, r, size, states):
    """Velocity for the ways the pipelines call the transformer."""
    c, (f, h, w) = ref.channels, size
    cases = [("t2v", (f, h, w), [999.0] * f, True),
             ("i2v", (f, h, w), [0.0] + [713.0] * (f - 1), True),
             ("image", (1, h + 2, w), [437.0], False),                              # one frame
             ("fraction", (max(2, f - 1), h, w + 2), [937.5] * max(2, f - 1), False)]      # Euler's times are not whole
    for name, shape, t, traced in cases:
        if name == "i2v" and f == 1 or not g.wanted(f"dit-{name}"):
            continue
        x, t = randn((c, *shape), r.randrange(2 ** 31)), torch.tensor(t)

        def run(m):
            trace = {}
            v = m.velocity(x, t, states, trace if traced else None)
            if name != "t2v":
                trace.pop("context", None)      # large, and the same in every case
            return {**trace, "velocity": v}
        golden, floor = floors(run)
        g.staged(f"dit-{name}", "dit", {"x": x, "timestep": t, "states": states}, golden, floor,
                 ["--trace"] if traced else [])


def make_noise(g, ref, r, size):
    c, (f, h, w) = ref.channels, size
    shapes = [(0, (c, f, h, w)), (42, (c, f, h, w)), (r.randrange(2 ** 31), (c, f, h, w)),
              (2 ** 32 + 7, (4, 2, 4, 6)), (2 ** 63 - 1, (4, 1, 2, 2)),     # only the low 32 bits of a seed matter
              (42, (1, 1, 4, 4)), (42, (1, 1, 1, 17)), (1, (5, 1, 3, 3)), (7, (3, 1, 7, 5)),
              (0, (1, 1, 1, 3)), (42, (1, 1, 2, 4)), (5, (3, 1, 1, 5))]     # fewer than 16 values: another algorithm
    tensors, about = {}, []
    for i, (seed, shape) in enumerate(shapes):
        tensors[f"noise.{i}"] = randn(shape, seed)
        about.append({"seed": seed, "shape": shape})
        text = ",".join(map(str, shape))
        g.case(f"noise-{i}-seed{seed}-{text.replace(',', 'x')}", "noise", "noise.safetensors",
               ["stage", "noise", "-m", "{model}", "--seed", str(seed), "--shape", text, "--out", "{out}"],
               [{"output": "noise", "expected": f"noise.{i}", "metric": "equal", "tolerance": 0}])
    g.write("noise.safetensors", tensors, stage="noise", draws=about,
            note="bit for bit on a CPU with AVX2 or AVX-512; see spec/sampling.md 9.2")


def make_samples(g, ref, floors, r, size, shift, guide, states, negative, first):
    """Whole denoising loops from given noise.  Turbo's fresh noise comes along as `renoise`."""
    c, (f, h, w) = ref.channels, size
    cases = [("unipc-t2v", "unipc", 4, 1.0, False), ("unipc-t2v-cfg", "unipc", 6, guide, False),
             ("unipc-i2v-cfg", "unipc", 5, guide, True), ("unipc-many", "unipc", 8, 1.0, False),
             ("euler-t2v", "euler", 4, 1.0, False), ("euler-i2v-cfg", "euler", 5, guide, True),
             ("dpmpp-t2v", "dpm++", 5, 1.0, False),
             ("turbo-t2v", "turbo", 4, 1.0, False), ("turbo-i2v", "turbo", 4, 1.0, True),
             ("turbo-published-t2v", "turbo-published", 4, 1.0, False),
             ("turbo-published-i2v", "turbo-published", 4, 1.0, True)]
    for name, sampler, steps, guidance, image in cases:
        if image and f == 1 or not g.wanted(f"sample-{name}"):
            continue        # a single frame that is given leaves nothing to generate
        seed = r.randrange(2 ** 31)
        turbo = sampler.startswith("turbo")
        draws = randn((c, f, h, w), seed, 4)
        inputs = {"noise": draws[0], "states": states}
        if guidance > 1:
            inputs["negative"] = negative
        if image:
            inputs["first"] = first
        if turbo:
            inputs["renoise"] = torch.stack(draws[1:])
        golden, floor = floors(lambda m: m.sample(**inputs, sampler=sampler, steps=steps, shift=shift, guidance=guidance))
        options = ["--sampler", sampler, "--steps", steps, "--guidance", guidance, "--trace"]
        options += ["--seed", seed] if turbo else ["--shift", shift]
        g.staged(f"sample-{name}", "sample", inputs, golden, floor, options,
                 note="renoise: draws 2, 3, 4 of torch.randn with this --seed, noise being draw 1" if turbo else "")


def picture(r, height, width):
    """An RGB test picture as u8 [H, W, 3]."""
    px = smooth_pixels(r, 1, height, width)[:, 0]
    return ((px.permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255).round().astype(np.uint8)


def make_generate(g, ref, floors, r, size, shift, guide, prompt, negative, image=None):
    """Whole runs of the real pipelines, loaded from disk by diffusers itself; only the tokenizer object is ours."""
    f, h, w = size
    height, width, frames = h * ref.stride, w * ref.stride, 4 * (f - 1) + 1
    if image is None:
        image = picture(r, height, width)
    PIL.Image.fromarray(image).save(os.path.join(g.out, "image.png"))
    pipe = WanPipeline.from_pretrained(ref.root, tokenizer=ref.tokenizer.hf, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    parts = dict(tokenizer=ref.tokenizer.hf, text_encoder=pipe.text_encoder, vae=pipe.vae, transformer=pipe.transformer)
    cases = [("t2v", None, 5, guide), ("t2v-noguide", None, 4, 1.0)] + ([("i2v", image, 5, guide)] if f > 1 else [])
    for name, picture_u8, steps, guidance in cases:
        if not g.wanted(f"generate-{name}"):
            continue
        seed = r.randrange(2 ** 31)
        scheduler = make_scheduler("unipc", shift)
        if picture_u8 is None:
            p, extra = WanPipeline(**parts, scheduler=scheduler, expand_timesteps=True), {}
        else:
            p = WanImageToVideoPipeline(**parts, scheduler=scheduler, expand_timesteps=True)
            extra = {"image": PIL.Image.fromarray(picture_u8)}
        p.set_progress_bar_config(disable=True)
        def call(kind):
            with torch.no_grad():
                return p(prompt=prompt, negative_prompt=negative, height=height, width=width, num_frames=frames,
                         num_inference_steps=steps, guidance_scale=guidance, output_type=kind,
                         generator=torch.Generator("cpu").manual_seed(seed), **extra).frames
        latents = call("latent")[0]
        frames_u8 = torch.from_numpy((call("np")[0] * 255).astype(np.uint8))

        def chain(m):       # the same run stage by stage; also in double and rounded, for the tolerances
            first = None
            if picture_u8 is not None:
                px = torch.from_numpy(picture_u8.copy()).permute(2, 0, 1).to(torch.float32) / 255
                first = m.encode((2 * px - 1)[:, None])
            z = m.sample(randn((ref.channels, f, h, w), seed), m.prompt(prompt), m.prompt(negative), first, "unipc", steps,
                         shift, guidance)["latents"]
            return {"latents": z, "frames": to_u8(m.decode(z))}
        mine, floor = floors(chain)
        gap = rel_l2(mine["latents"], latents)
        print(f"generate-{name}: stages against pipeline: latents {gap:.1e}, "
              f"frames differing {(mine['frames'] != frames_u8).float().mean():.1e}")
        if gap > 1e-5:
            raise SystemExit("the stages do not add up to the pipeline")
        inputs = {} if picture_u8 is None else {"image": torch.from_numpy(picture_u8.copy())}
        args = ["generate", "-m", "{model}", "-p", prompt, "-n", negative, "--size", f"{width}x{height}",
                "--frames", str(frames), "--steps", str(steps), "--guidance", str(guidance), "--shift", str(shift),
                "--sampler", "unipc", "--seed", str(seed)]
        args += ["-i", "{dir}/image.png"] if picture_u8 is not None else []
        args += ["-o", "{out}"]
        write_generate(g, name, args, inputs, latents, frames_u8, floor)

    # Turbo has no diffusers pipeline: our loop over the same stages, fresh noise from the same generator as the first
    if not g.wanted("generate-turbo"):
        return
    seed = r.randrange(2 ** 31)
    def chain(m):
        first = None
        if f > 1:
            px = torch.from_numpy(image.copy()).permute(2, 0, 1).to(torch.float32) / 255
            first = m.encode((2 * px - 1)[:, None])
        d = randn((ref.channels, f, h, w), seed, 4)
        z = m.sample(d[0], m.prompt(prompt), None, first, "turbo", renoise=d[1:])["latents"]
        return {"latents": z, "frames": to_u8(m.decode(z))}
    golden, floor = floors(chain)
    args = ["generate", "-m", "{model}", "-p", prompt, "--size", f"{width}x{height}", "--frames", str(frames),
            "--sampler", "turbo", "--seed", str(seed)] + (["-i", "{dir}/image.png"] if f > 1 else []) + ["-o", "{out}"]
    write_generate(g, "turbo", args, {"image": torch.from_numpy(image.copy())} if f > 1 else {}, golden["latents"],
                   golden["frames"], floor)


def write_generate(g, name, args, inputs, latents, frames, floor):
    tol = tolerances("generate", floor, "latents")
    # Frames: how many values may differ at all, how many by more than one, and how far the mean may lean.  Rounding
    # instead of truncating changes half of the values and leans by 0.5.
    slack = {"f32": [0.05, 0.001, 0.02]}
    for kind in ("bf16", "q8"):
        differ, far, lean = floor["frames"][kind]
        slack[kind] = [round(min(1.0, 0.1 + 2 * differ), 4), round(min(0.6, 0.01 + 3 * far), 4),
                       round(min(0.3, 0.05 + 3 * lean), 4)]
    compare = [{"output": "latents", "expected": "latents", "metric": "rel_l2", "tolerance": tol},
               {"output": "frames", "expected": "frames", "metric": "u8", "tolerance": slack}]
    file = f"generate-{name}.safetensors"
    g.write(file, {**inputs, "latents": latents, "frames": frames}, stage="generate", args=args,
            tolerance={"latents": tol, "frames": slack},
            noise_floor=floor["f32"], bf16_inputs=floor["bf16"], q8_inputs=floor["q8"], frames_gap=floor["frames"],
            rounding="u8 = floor(clamp(x / 2 + 1 / 2, 0, 1) * 255) in float32: truncation, no dither")
    g.case(f"generate-{name}", "generate", file, args, compare)


def make_resize(g, ref, r):
    """Image preparation of the pipelines when the picture has another size: stretched, Lanczos, 8 bit (Pillow)."""
    height, width = 2 * ref.stride, 4 * ref.stride
    tensors, about = {}, []
    for i, (ih, iw) in enumerate([(height * 2 + 13, width + 37), (height // 2 + 3, width // 2 + 1)]):
        image = picture(r, ih, iw)
        px = VideoProcessor(vae_scale_factor=ref.stride).preprocess(PIL.Image.fromarray(image), height=height, width=width)
        tensors |= {f"image.{i}": torch.from_numpy(image), f"pixels.{i}": px[0].float()}
        about.append({"from": [iw, ih], "to": [width, height]})
    g.write("resize.safetensors", tensors, stage="resize", sizes=about,
            note="image u8 [H, W, 3] -> pixels f32 [3, h, w] in [-1, 1]; official code covers and crops instead")
    g.data.append({"file": "resize.safetensors", "about": "no stage command: for a unit test of the Lanczos resize"})


def plain_spiece(blob):
    """The same pieces with UMT5's switches: no normalisation, spaces kept, "_" in front (see train_tokenizer).

    A SentencePiece file is a protobuf message of messages; field 3 is the normaliser, which we write anew."""
    def varint(at):
        value = shift = 0
        while True:
            b = blob[at]
            value |= (b & 127) << shift
            at, shift = at + 1, shift + 7
            if b < 128:
                return value, at
    out, at = b"", 0
    while at < len(blob):
        begin = at
        tag, at = varint(at)
        size, at = varint(at)
        if tag & 7 != 2:
            raise SystemExit("spiece.model: not a SentencePiece file")
        at += size
        if tag >> 3 != 3:
            out += blob[begin:at]
    spec = b"\x0a\x08identity" + b"\x18\x01" + b"\x20\x00" + b"\x28\x01"
    return out + b"\x1a" + bytes([len(spec)]) + spec


def pack(args):
    """Puts loose checkpoints (see --help) into a model directory; nothing is computed."""
    global LOSSLESS
    LOSSLESS = False
    at = lambda name: os.path.join(args.ckpt, name)
    conf, vae_conf = json.load(open(at("model.json"))), json.load(open(at("vae.json")))
    dit, te, vae = (WanTransformer3DModel(**conf["dit"]), UMT5EncoderModel(UMT5Config(**conf["te"])),
                    AutoencoderKLWan(**vae_conf))
    parts = args.dit or sorted(at(f) for f in os.listdir(args.ckpt) if re.fullmatch(r"dit-\d+\.safetensors", f))
    dit.load_state_dict({k: v.float() for p in parts for k, v in load_file(p).items()})
    vae.load_state_dict({k: v.float() for k, v in load_file(at("vae.safetensors")).items()})
    state = {k: v.float() for k, v in load_file(at("te.safetensors")).items()}
    shared = state.get("shared.weight", state.get("encoder.embed_tokens.weight"))
    te.load_state_dict({**state, "shared.weight": shared, "encoder.embed_tokens.weight": shared})
    tok = Tokenizer(plain_spiece(open(at("spiece.model"), "rb").read()))
    c = {"dtype.transformer": "BF16", "dtype.vae": "BF16", "dtype.text_encoder": "BF16", "shards": 1,
         "flow_shift": args.shift}
    write_diffusers(args.out, c, dit, te, vae, tok)
    if args.original:
        write_original(os.path.join(args.out, "original"), c, dit, te, vae, tok)
    if args.gguf:
        write_gguf(os.path.join(args.out, "gguf"), c, 0, dit, te, vae, tok)


def make_goldens(model, out, seed, dit_size, clip_size, about, own_prompt=None, image=None, guide=5.0, skip=()):
    torch.set_grad_enabled(False)
    ref, r = Reference(model), random.Random(seed)
    g, floors = Goldens(out, seed, skip), Floors(ref)
    shift = ref.scheduler["flow_shift"]
    prompt, negative = f"  {sentence(r, 6)} &amp; {sentence(r, 2)}", sentence(r, 5)     # cleaning has something to do
    if own_prompt is not None:
        prompt, negative = own_prompt, ""
    states, neg = ref.prompt(prompt), ref.prompt(negative)
    make_tokens(g, ref, r)
    make_text(g, ref, floors, [("short", prompt), ("empty", ""), ("long", sentence(r, 700))])
    make_vae(g, ref, floors, r, [("image", (1, *clip_size[1:])), ("two", (2, 2, 4)),
                                 ("clip", (3, 1, 3))])      # odd sizes are fine for the VAE alone
    make_dit(g, ref, floors, r, dit_size, states)
    make_noise(g, ref, r, clip_size)
    px = smooth_pixels(r, 1, ref.stride * clip_size[1], ref.stride * clip_size[2])
    if image is not None:
        px = torch.from_numpy(image).permute(2, 0, 1)[:, None].float() / 127.5 - 1
    make_samples(g, ref, floors, r, clip_size, shift, guide, states, neg, ref.encode(px))
    make_generate(g, ref, floors, r, clip_size, shift, guide, prompt, negative, image)
    make_resize(g, ref, r)
    g.manifest(**about)
    return g


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    a = sub.add_parser("random", help="a tiny random model and its goldens")
    a.add_argument("--seed", type=int, required=True)
    a.add_argument("--out", required=True)
    a.add_argument("--original", action="store_true", help="also DIR/original: official tensor names")
    a.add_argument("--gguf", action="store_true", help="also DIR/gguf: Q8_0 transformer and text encoder")
    a.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace one drawn number")
    k = sub.add_parser("pack", help="loose checkpoints into a model directory (no goldens)")
    k.add_argument("--ckpt", required=True, help="folder with model.json, vae.json, dit-*.safetensors, te.safetensors, "
                                                 "vae.safetensors (diffusers names) and spiece.model")
    k.add_argument("--dit", action="append", metavar="FILE", help="transformer file(s) instead of the ones in --ckpt")
    k.add_argument("--shift", type=float, default=5.0, help="flow_shift for the scheduler (default 5)")
    k.add_argument("--out", required=True)
    k.add_argument("--original", action="store_true")
    k.add_argument("--gguf", action="store_true")
    b = sub.add_parser("model", help="goldens of an existing model")
    b.add_argument("--from", dest="source", required=True, help="model directory in diffusers layout")
    b.add_argument("--out", required=True)
    b.add_argument("--seed", type=int, default=1, help="of the test inputs")
    b.add_argument("--frames", type=int, default=5, help="of the generated clips")
    b.add_argument("--size", default="64x32", help="of the generated clips, width x height")
    b.add_argument("--prompt", help="something the model understands (default: random words); the negative one is empty")
    b.add_argument("--image", help="first frame the model understands, stretched to --size (default: waves)")
    b.add_argument("--guidance", type=float, default=5.0)
    b.add_argument("--skip", action="append", default=[], metavar="CASE",
                   help="leave out dit, sample and generate cases of this name, * allowed (repeatable)")
    for s in (a, b, k):
        s.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.command == "pack":
        return pack(args)
    if args.command == "random":
        c = draw_config(args.seed, args.set)
        make_random_model(args.out, args.seed, c, args.original, args.gguf)
        layouts = ["diffusers"] + ["original"] * args.original + ["gguf"] * args.gguf
        command = " ".join(["random", "--seed", str(args.seed)] + [f"--set {s!r}" for s in args.set])
        g = make_goldens(os.path.join(args.out, "model"), os.path.join(args.out, "golden"), args.seed, c["size.dit"],
                         c["size.clip"], {"command": command, "layouts": layouts, "config": c})
    else:
        w, h = map(int, args.size.split("x"))
        clip = [(args.frames - 1) // 4 + 1, h // 16, w // 16]
        command = ["model", "--seed", str(args.seed), "--frames", str(args.frames), "--size", args.size]
        command += ["--prompt", args.prompt] * (args.prompt is not None) + [v for s in args.skip for v in ("--skip", s)]
        command += ["--guidance", f"{args.guidance:g}"]
        image = None
        if args.image:
            command += ["--image", os.path.basename(args.image)]
            image = np.array(PIL.Image.open(args.image).convert("RGB").resize((w, h), PIL.Image.LANCZOS))
        g = make_goldens(args.source, os.path.join(args.out, "golden"), args.seed, [3, 4, 6], clip,
                         {"command": shlex.join(command), "layouts": ["diffusers"]}, args.prompt, image, args.guidance, args.skip)
    total = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(args.out) for f in fs)
    print(f"{len(g.cases)} cases in {args.out}, {total / 1e6:.2f} MB in all")


if __name__ == "__main__":
    main()
