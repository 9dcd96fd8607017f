#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times one clip of Wan2.2 TI2V-5B with diffusers and PyTorch: full-size random weights, an image-to-video job of a few steps
without guidance, everything loaded and warm.

    diffusers_ti2v.py [--size 480x480] [--frames 81] [--steps 4] [--compile] [--json FILE]
    diffusers_ti2v.py --tiny --device cpu        the same calls on a model of a few thousand numbers, to see that they run

Stages, each until the device has finished:
  text    512 token ids on the host (14 of a prompt, the rest padding) to UMT5-XXL's states
  encode  one picture of bytes on the host to the latents of the first frame
  dit     the steps: the transformer, with a timestep for each token as image-to-video has, and Euler's sum
  decode  latents to frames of bytes in host memory
Seconds are medians of --repeat runs after one that is not counted; "together" is the median of whole runs.

Matrix products and convolutions are bf16.  Attention is cuDNN's, which was faster than flash-attention on H100 and H200.  diffusers
comes from PEER if that is set, a folder that holds it; otherwise from where Python finds it."""
import argparse
import json
import os
import resource
import statistics
import sys
import time

if os.environ.get("PEER"):
    sys.path.insert(0, os.environ["PEER"])

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import UMT5Config, UMT5EncoderModel

TOKENS, PADDED = 14, 512
STAGES = ("text", "encode", "dit", "decode")

DIT = dict(patch_size=(1, 2, 2), num_attention_heads=24, attention_head_dim=128, in_channels=48, out_channels=48, text_dim=4096,
           freq_dim=256, ffn_dim=14336, num_layers=30, cross_attn_norm=True, eps=1e-6)
VAE = dict(base_dim=160, decoder_base_dim=256, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
           temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12, patch_size=2,
           scale_factor_temporal=4, scale_factor_spatial=16)
TEXT = dict(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu",
            is_encoder_decoder=False, use_cache=False)
TINY = (dict(DIT, num_attention_heads=2, attention_head_dim=24, text_dim=32, ffn_dim=64, num_layers=2),
        dict(VAE, base_dim=8, decoder_base_dim=8),
        dict(TEXT, vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4))


def build(make, device, seed):
    """Random weights straight on the device: products keep their size from layer to layer."""
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        m = make()
    torch.set_default_dtype(torch.float32)
    g = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, p in m.named_parameters():
            if p.ndim >= 2 and "gamma" not in name:
                p.normal_(0, 0.02, generator=g)
            elif "norm" in name or "gamma" in name:
                p.fill_(1)
            else:
                p.zero_()
    return m.eval().requires_grad_(False)


class Job:
    def __init__(self, args):
        self.device, self.steps = args.device, args.steps
        self.width, self.height = (int(n) for n in args.size.split("x"))
        if self.width % 32 or self.height % 32 or args.frames % 4 != 1:
            sys.exit("sides are multiples of 32, frames 1, 5, 9, ...")
        dit, vae, text = TINY if args.tiny else (DIT, VAE, TEXT)
        self.stages, self.text_dim = args.stages, text["d_model"]
        parts = {"dit": lambda: WanTransformer3DModel(**dit), "vae": lambda: AutoencoderKLWan(**vae),
                 "umt5": lambda: UMT5EncoderModel(UMT5Config(**text))}
        needs = {"text": "umt5", "encode": "vae", "dit": "dit", "decode": "vae"}
        for seed, name in enumerate(parts, 1):
            wanted = any(needs[s] == name for s in args.stages)
            setattr(self, name, build(parts[name], args.device, seed) if wanted else None)
        self.run_dit = torch.compile(self.dit, dynamic=False) if args.compile else self.dit
        g = torch.Generator().manual_seed(4)
        self.ids = torch.zeros(1, PADDED, dtype=torch.int64)
        self.ids[0, :TOKENS] = torch.randint(1, text["vocab_size"], (TOKENS,), generator=g)
        self.mask = (torch.arange(PADDED) < TOKENS).long()[None]
        self.picture = torch.randint(0, 256, (self.height, self.width, 3), dtype=torch.uint8, generator=g)
        f, h, w = (args.frames + 3) // 4, self.height // 16, self.width // 16
        self.noise = torch.randn(1, 48, f, h, w, generator=g)
        # Normally of the VAE's config; what they are makes no difference to the time.
        self.mean, self.std = torch.zeros(1, 48, 1, 1, 1, device=args.device), torch.ones(1, 48, 1, 1, 1, device=args.device)
        # 1 for tokens of the first latent frame, which stays as it is given.
        self.given = torch.zeros(1, f, h // 2, w // 2, device=args.device)
        self.given[:, 0] = 1

    def sigmas(self, shift=5.0):
        s = torch.linspace(1, 0, self.steps + 1)
        return (shift * s / (1 + (shift - 1) * s)).tolist()

    def text(self):
        states = self.umt5(input_ids=self.ids.to(self.device), attention_mask=self.mask.to(self.device)).last_hidden_state
        return states * self.mask.to(self.device)[..., None]

    def encode(self):
        x = self.picture.to(self.device).permute(2, 0, 1)[None, :, None].to(torch.bfloat16) / 127.5 - 1
        return (self.vae.encode(x, return_dict=False)[0].mode().float() - self.mean) / self.std

    def denoise(self, states, first):
        x, s = self.noise.to(self.device), self.sigmas()
        x[:, :, :1] = first
        for now, then in zip(s, s[1:]):
            t = (1000 * now * (1 - self.given)).flatten(1)
            v = self.run_dit(x.to(torch.bfloat16), t, states, return_dict=False)[0].float()
            x = x + (then - now) * v
            x[:, :, :1] = first
        return x

    def decode(self, x):
        y = self.vae.decode((x * self.std + self.mean).to(torch.bfloat16), return_dict=False)[0]
        return ((y[0].float() / 2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu()

    def wait(self):
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def run(self):
        """One clip: stage -> seconds, the same of the processors, and the frames."""
        seconds, cpu = {}, {}

        def timed(name, f, instead):
            if name not in self.stages:
                return instead
            self.wait()
            begin, cpu_begin = time.perf_counter(), time.process_time()
            out = f()
            self.wait()
            seconds[name], cpu[name] = time.perf_counter() - begin, time.process_time() - cpu_begin
            return out
        noise = self.noise.to(self.device)
        with torch.no_grad():
            begin, cpu_begin = time.perf_counter(), time.process_time()
            states = timed("text", self.text, torch.zeros(1, PADDED, self.text_dim, dtype=torch.bfloat16, device=self.device))
            first = timed("encode", self.encode, noise[:, :, :1])
            x = timed("dit", lambda: self.denoise(states, first), noise)
            frames = timed("decode", lambda: self.decode(x), None)
            seconds["together"], cpu["together"] = time.perf_counter() - begin, time.process_time() - cpu_begin
        return seconds, cpu, frames


def peak_gib(device):
    return torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", default="480x480", metavar="WxH")
    p.add_argument("--frames", type=int, default=81)
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--repeat", type=int, default=3, help="timed runs (default 3); 0: the first run counts")
    p.add_argument("--stages", default=",".join(STAGES), help="those to run, with models for them only (default all)")
    p.add_argument("--threads", type=int, help="of a CPU")
    p.add_argument("--compile", action="store_true", help="the transformer through torch.compile")
    p.add_argument("--attention", choices=("cudnn", "flash"), default="cudnn")
    p.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN try its convolutions first")
    p.add_argument("--device", default="cuda")
    p.add_argument("--tiny", action="store_true")
    p.add_argument("--json", metavar="FILE")
    args = p.parse_args()
    args.stages = [s for s in STAGES if s in args.stages.split(",")]
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    begin = time.perf_counter()
    job = Job(args)
    job.wait()
    load = time.perf_counter() - begin
    first = SDPBackend.CUDNN_ATTENTION if args.attention == "cudnn" else SDPBackend.FLASH_ATTENTION
    # cuDNN has no kernel for what carries a mask; the others stand by.
    with sdpa_kernel([first, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True):
        warm, warm_cpu, frames = job.run()
        both = [job.run()[:2] for _ in range(args.repeat)] or [(warm, warm_cpu)]
    runs = [b[0] for b in both]
    if frames is not None and tuple(frames.shape) != (args.frames, job.height, job.width, 3):
        sys.exit(f"frames are {tuple(frames.shape)}")
    name = "diffusers, compiled" if args.compile else "diffusers, eager"
    median, cpu = ({s: statistics.median(r[s] for r in which) for s in (*args.stages, "together")}
                   for which in (runs, [b[1] for b in both]))
    print(f"{name}: {args.size}, {args.frames} frames, {args.steps} steps, torch {torch.__version__}, "
          f"{torch.cuda.get_device_name() if args.device.startswith('cuda') else args.device}")
    print(f"{'load':<10}{load:10.2f}\n{'first run':<10}{warm['together']:10.2f}")
    for s in (*args.stages, "together"):
        print(f"{s:<10}{median[s]:10.4f}")
    print(f"{'GPU memory at most':<20}{peak_gib(args.device):6.1f} GiB", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"name": name, "seconds": median, "cpu_seconds": cpu, "runs": runs,
                       "peak_rss": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "load": load, "first": warm["together"],
                       "gib": peak_gib(args.device), "size": args.size, "frames": args.frames, "steps": args.steps}, f, indent=1)


if __name__ == "__main__":
    main()
