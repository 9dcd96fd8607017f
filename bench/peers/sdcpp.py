#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stages of Wan2.2 TI2V-5B on the CPU by stable-diffusion.cpp and by `wan`, one after the other on the same files.

sdcpp.sh builds the peer and calls this.  Weights are random, full-size and Q8_0 (the VAE F16), written once by `wan bench
--synthetic`.  CPU seconds (user and system, all threads) are what to compare on a machine that others use too; the peer's are
read from /proc while it runs: at the log line that ends a stage, and when that stage began by the peer's own clock.

  text    a prompt of 14 tokens (the peer always computes 512)
  dit     one denoising step without guidance
  decode  latents to frames, in a run of its own without the text encoder
  clip    the whole command: loading, text, --clip-steps steps and decoding at --size; `wan bench` sums the same stages
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

PROMPT = "a lovely cat walking on the grass in the sun, cinematic"
ENDS = {"text": "get_learned_condition completed", "dit": "sampling completed", "decode": "decode_first_stage completed"}
TICKS = os.sysconf("SC_CLK_TCK")


def status(pid):
    """(CPU seconds, most resident bytes) of a running process; None once it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            kib = re.search(r"VmHWM:\s*(\d+)", f.read())
        return (int(fields[11]) + int(fields[12])) / TICKS, 1024 * int(kib[1])
    except (OSError, TypeError, IndexError):
        return None


class Watch(threading.Thread):
    """Looks at a process fifty times a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.seen = pid, []
        self.start()

    def look(self):
        now = status(self.pid)
        if now:
            self.seen.append((time.monotonic(), *now))
        return now

    def run(self):
        while self.look():
            time.sleep(0.02)

    def between(self, begin, end):
        """CPU seconds in that time."""
        return max(s[1] for s in self.seen if s[0] <= end) - max([0, *(s[1] for s in self.seen if s[0] < begin)])

    def most(self):
        """Bytes resident at most so far."""
        return max(s[2] for s in self.seen)


def follow(p, watch, wanted, found, begin, out):
    """Reads what the peer says until it has said the last of what is wanted, or ends; the stages that ended."""
    ended = set()
    for raw in p.stdout:
        watch.look()
        now, line = time.monotonic(), re.split("[\r\x1b]", raw.decode("utf-8", "replace").rstrip())[-1]
        print(f"{now - begin:8.2f} {watch.seen[-1][1] if watch.seen else 0:8.2f} {line}", file=out, flush=True)
        for stage, end in ENDS.items():
            took = re.search(re.escape(end) + r", taking ([0-9.]+) ?s", line)
            if took:
                ended.add(stage)
                found(stage, (watch.between(now - float(took[1]), now), float(took[1]), watch.most()))
        if wanted and ended >= set(wanted):
            break
    return ended


def peer(program, files, size, args, steps, wanted, found, log):
    """Runs the peer and calls found(stage, (CPU seconds, seconds, most resident)) as stages end; the same of the run.  Stops it
    after the last of the wanted stages; none: lets it finish."""
    text = ["--t5xxl", files["text"]] if wanted != ["decode"] else []
    command = [program, "-M", "vid_gen", "--diffusion-model", files["dit"], "--vae", files["vae"], *text, "-p", PROMPT,
               "--cfg-scale", "1", "--sampling-method", "euler", "--flow-shift", "5.0", "-t", str(args.threads), "-v",
               "-W", str(size[0]), "-H", str(size[1]), "--video-frames", str(size[2]), "--steps", str(steps), *args.peer_args,
               "-o", log + ".webm"]
    ended, begin = None, time.monotonic()
    with open(log, "w", encoding="utf-8") as out:
        print(*command, file=out)
        p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        watch = Watch(p.pid)
        try:
            ended = follow(p, watch, wanted, found, begin, out)
        finally:
            if wanted or ended is None:
                p.kill()
            status = p.wait()
            if os.path.exists(log + ".webm"):
                os.remove(log + ".webm")
    if not ended >= set(wanted or ENDS) or (status and not wanted):
        with open(log, encoding="utf-8") as f:
            sys.exit(f"{program} ended with status {status}; the end of {log}:\n" + "".join(f.readlines()[-5:]))
    return watch.seen[-1][1], time.monotonic() - begin, watch.most()


def bench(args, log, *more):
    """The object of `wan bench`."""
    command = [args.wan, "bench", "--synthetic", "ti2v-5b", "--type", "q8_0", "--device", "cpu", "--threads", str(args.threads),
               "--json", *more]
    env = dict(os.environ, XDG_CACHE_HOME=os.path.abspath(args.cache))
    with open(log, "w", encoding="utf-8") as f:
        print(*command, file=f, flush=True)
        p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=f, env=env, check=False)
        f.write(p.stdout.decode())
    if p.returncode:
        sys.exit(f"wan failed; see {log}: " + p.stdout.decode().strip())
    return json.loads(p.stdout)


def make_files(args):
    """Paths of the three parts, written if they are not there."""
    bench(args, os.path.join(args.logs, "files.log"), "--stage", "encode", "--size", "32x32", "--frames", "1")
    folder = os.path.join(os.path.abspath(args.cache), "wan", "synthetic-ti2v-5b-Q8_0-0")
    files = {}
    for part, name in ("dit", "dit"), ("text", "umt5"), ("vae", "Wan2.2_VAE"):
        files[part], = [os.path.join(folder, n) for n in os.listdir(folder) if n.rpartition(".")[0] == name]
    return files


def shape(text):
    m = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if not m:
        raise argparse.ArgumentTypeError("WIDTHxHEIGHTxFRAMES, 480x480x17 for instance")
    return tuple(int(n) for n in m.groups())


def label(args, stage):
    if stage == "clip":
        return "clip %dx%dx%d, %d steps" % (*args.size, args.clip_steps)
    size = args.decode_size if stage == "decode" else args.size
    return stage if stage == "text" else {"dit": "DiT step", "decode": "decode"}[stage] + " %dx%dx%d" % size


class Results:
    """name -> label -> (CPU seconds, seconds, most resident); kept in a file as they come."""

    def __init__(self, path):
        self.rows, self.path = {}, path

    def add(self, name, what, figures):
        self.rows.setdefault(name, {})[what] = list(figures)
        print(f"{name}: {what}, {figures[0]:.1f} CPU s, {figures[1]:.1f} s, {figures[2] / 2**30:.2f} GiB", file=sys.stderr,
              flush=True)
        with open(self.path, "w", encoding="utf-8") as f:
            json.dump(self.rows, f, indent=1)


def run_peer(args, files, name, program, results):
    tag = os.path.join(args.logs, name.replace(" ", "-"))
    early = [s for s in ("text", "dit") if s in args.stages]
    if early:
        peer(program, files, args.size, args, 1, early, lambda s, f: s in early and results.add(name, label(args, s), f),
             tag + ".log")
    if "decode" in args.stages:
        peer(program, files, args.decode_size, args, 1, ["decode"],
             lambda s, f: s == "decode" and results.add(name, label(args, s), f), tag + "-decode.log")
    if "clip" in args.stages:
        results.add(name, label(args, "clip"),
                    peer(program, files, args.size, args, args.clip_steps, [], lambda s, f: None, tag + "-clip.log"))


def run_ours(args, precision, results):
    for stage in args.stages:
        size = args.decode_size if stage == "decode" else args.size
        steps = args.clip_steps if stage == "clip" else 1
        d = bench(args, os.path.join(args.logs, f"wan-{precision}-{stage}.log"), "--precision", precision,
                  "--size", "%dx%d" % size[:2], "--frames", str(size[2]), "--steps", str(steps),
                  "--stage", "all" if stage == "clip" else stage)
        # The peer's clip begins without a picture.
        parts = [s for s in d["stages"] if s["name"] != "encode"]
        load = d["load_seconds"] if stage == "clip" else 0
        results.add("wan " + precision, label(args, stage),
                    (sum(s["cpu_seconds"] for s in parts) + load, sum(s["seconds"] for s in parts) + load, d["peak_rss"]))


def table(rows, threads):
    """CPU seconds, in brackets seconds; then how many times as much the peers take as each of ours."""
    order = ["text", "DiT", "decode", "clip"]
    labels = sorted({what for row in rows.values() for what in row}, key=lambda w: (order.index(w.split()[0]), w))
    print(f"| CPU s (seconds), {threads} threads | " + " | ".join(labels) + " | peak RSS |\n" + "|---" * (len(labels) + 2) + "|")
    for name, row in rows.items():
        cells = [f"{row[w][0]:.1f} ({row[w][1]:.1f})" if w in row else "" for w in labels]
        print(f"| {name} | " + " | ".join(cells) + f" | {max(r[2] for r in row.values()) / 2**30:.2f} GiB |")
    for name, row in rows.items():
        for other, peers in rows.items():
            if name.startswith("wan") and not other.startswith("wan"):
                both = [w for w in labels if w in row and w in peers]
                cells = [f"{peers[w][0] / row[w][0]:.2f}" if w in both else "" for w in labels]
                memory = f"{max(peers[w][2] for w in both) / max(row[w][2] for w in both):.2f}" if both else ""
                print(f"| {other} / {name} | " + " | ".join(cells) + f" | {memory} |")


def merge(paths):
    rows = {}
    for path in paths:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                for name, row in json.load(f).items():
                    rows.setdefault(name, {}).update(row)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", type=shape, default=(480, 480, 17), metavar="WxHxF",
                   help="of text, dit and clip (default 480x480x17)")
    p.add_argument("--decode-size", type=shape, default=(256, 256, 17), metavar="WxHxF", help="default 256x256x17")
    p.add_argument("--stages", default="text,dit,decode", type=lambda t: t.split(","),
                   help="of text, dit, decode and clip (default text,dit,decode)")
    p.add_argument("--clip-steps", type=int, default=4)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--precisions", default="f32,bf16,int8", help="of ours, perhaps none (default f32,bf16,int8)")
    p.add_argument("--peer-args", default="", type=str.split, help="more options for sd-cli, --diffusion-fa say")
    p.add_argument("--results", metavar="FILE", help="where figures go as they come (default: beside the logs)")
    p.add_argument("--merge", nargs="+", metavar="FILE", help="only one table of results that are there")
    p.add_argument("--default", default="", help=argparse.SUPPRESS)
    p.add_argument("--fast", default="", help=argparse.SUPPRESS)
    p.add_argument("--wan", default="build/wan", help=argparse.SUPPRESS)
    p.add_argument("--cache", default=os.path.expanduser("~/.cache"), help=argparse.SUPPRESS)
    p.add_argument("--logs", default="", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.merge:
        return table(merge(args.merge), args.threads)
    if not set(args.stages) <= {*ENDS, "clip"}:
        p.error("stages are text, dit, decode and clip")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))       # and the peer with it
    args.logs = args.logs or os.path.join(args.cache, "wan-peers", "logs")
    os.makedirs(args.logs, exist_ok=True)
    files = make_files(args)
    results = Results(args.results or os.path.join(args.logs, "results.json"))
    for name, program in ("sd.cpp default", args.default), ("sd.cpp fastest", args.fast):
        if program:
            run_peer(args, files, name, program, results)
    for precision in filter(None, args.precisions.split(",")):
        run_ours(args, precision, results)
    return table(results.rows, args.threads)


if __name__ == "__main__":
    main()
