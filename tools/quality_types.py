#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What each type of weights does to the demo model's clips: the table of docs/quality.md.

    quality_types.py --wan build/wan --model DIR --shared ../shared --out DIR [--types q8_0,q4_k_m] [--clips 40] [--images 8]

Converts the model (BF16 or F32 weights) to each type, makes clips of the prompts with the seeds of run_prompts.py, and
compares them with the clips of type f32, which always come first: `wan quality` for the pixels, check_clip.py for what they
show.  Clips that are there already are kept, so it can be stopped and called again.  PSNR, SSIM and mean error are of whole
clips over the first --compared prompts, so that every row is about the same clips; the counts are of all clips there are.

Needs the tools of the steering repository (--shared), and numpy for them."""
import argparse
import json
import os
import statistics
import subprocess
import sys

ALL = "f32 f16 q8_0 fp8 int8 q6_k q5_k_m q5_k_s q5_1 q5_0 q4_k_m q4_k q4_1 q4_0 iq4_nl iq4_xs q3_k q2_k"
FOLDERS = ("fp8", "int8")  # GGUF has no such types


def convert(args, kind):
    path = os.path.join(args.out, "model", kind if kind in FOLDERS else kind + ".gguf")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        subprocess.run([args.wan, "convert", args.model, path, "--type", kind, "-q"], check=True)
    return path


def clip_path(args, kind, i, images):
    return os.path.join(args.out, "clips", kind + ("-i2v" if images else ""), f"{i:03d}.safetensors")


def make(args, tools, kind, images):
    """The clips of one type that are not there yet."""
    settings = argparse.Namespace(wan=args.wan, model=convert(args, kind), settings=tools.defaults(args.model), verbose=False,
                                  timeout=3600, extra=["--threads", str(args.threads)] if args.threads else [])
    for i, prompt, image in clips_of(args, tools, images):
        path = clip_path(args, kind, i, images)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fault = None if os.path.exists(path) else tools.generate(settings, i, prompt, image, path)
        if fault:
            sys.exit(f"{kind}, clip {i}: {fault}")


def clips_of(args, tools, images):
    if images:
        return tools.clip_list(None, os.path.join(args.shared, "tools", "first_frames"), args.images)
    return tools.clip_list(os.path.join(args.shared, "tools", "prompts.txt"), None, args.clips)


def verdicts(args, tools, kind, images):
    """(right, judged, numbers of the wrong ones) of the clips that are there."""
    wrong, judged = [], 0
    for i, prompt, image in clips_of(args, tools, images):
        path = clip_path(args, kind, i, images)
        if os.path.exists(path):
            judged += 1
            wrong += [] if tools.check_clip.check_file(prompt, path, image).passed else [str(i)]
    return judged - len(wrong), judged, wrong


def compare(args, kind, i):
    a, b = (clip_path(args, k, i, False) for k in ("f32", kind))
    if not os.path.exists(b):
        return None
    run = subprocess.run([args.wan, "quality", a, b, "--json"], stdout=subprocess.PIPE, check=True)
    q = json.loads(run.stdout)["clip"]
    return q["psnr"] if q["psnr"] is not None else float("inf"), q["ssim"], q["mae"]


def size_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(path) for n in names)


def row(args, tools, kind):
    measured = [m for m in (compare(args, kind, i) for i in range(min(args.compared, args.clips))) if m]
    if not measured:
        return None
    psnr, ssim, mae = zip(*measured)
    cells = [kind, f"{size_of(convert(args, kind)) / 1e6:.1f}"]
    for values, worst, digits in ((psnr, min, 1), (ssim, min, 4), (mae, max, 2)):
        cells += [f"{statistics.median(values):.{digits}f}", f"{worst(values):.{digits}f}"]
    for images in (False, True):
        right, judged, wrong = verdicts(args, tools, kind, images)
        cells.append(f"{right} of {judged}" + (f" ({', '.join(wrong)})" if wrong else "") if judged else "-")
    return "| " + " | ".join(cells) + " |"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--wan", default="build/wan")
    p.add_argument("--model", required=True, help="the demo model in BF16 or F32")
    p.add_argument("--shared", default="../shared", help="the steering repository's shared folder")
    p.add_argument("--out", required=True, help="folder for models and clips")
    p.add_argument("--types", default=ALL.replace(" ", ","))
    p.add_argument("--clips", type=int, default=40, help="prompts a type")
    p.add_argument("--images", type=int, default=8, help="first frames a type")
    p.add_argument("--compared", type=int, default=12, help="prompts whose clips are compared with f32's")
    p.add_argument("--threads", type=int)
    p.add_argument("--table", action="store_true", help="make no clips, only the table of those that are there")
    args = p.parse_args()
    sys.path.insert(0, os.path.join(args.shared, "tools"))
    import run_prompts as tools
    kinds = args.types.split(",")
    if not args.table:
        for kind in ["f32"] + [k for k in kinds if k != "f32"]:
            for images in (False, True):
                make(args, tools, kind, images)
    print("| type | MB | PSNR, median | worst | SSIM, median | worst | mean error of 255, median | worst | "
          "text-to-video | image-to-video |\n" + "|---" * 10 + "|")
    for kind in kinds:
        line = row(args, tools, kind)
        if line:
            print(line, flush=True)


if __name__ == "__main__":
    main()
