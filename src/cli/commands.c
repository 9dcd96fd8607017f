/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <string.h>

// clang-format off
static const command list[] = {
    { "generate", FOR_GENERATE, 0, "-p PROMPT",
      "make a clip from a prompt and perhaps a first picture",
      "Every setting that is not given is the model's own.  The clip appears under its name only when it is complete.",
      wan_command_generate },
    { "stage", FOR_STAGE, 1, "NAME --out FILE",
      "run one stage alone on tensors of a safetensors file",
      "NAME is tokens (-p), text, encode, dit, decode, noise (--seed, --shape) or sample (--sampler, --steps, --shift, "
      "--guidance); all but tokens and noise read --in.",
      wan_command_stage },
    { "selftest", FOR_SELFTEST, 0, "",
      "compare every stage with results stored beside the model",
      "Prints the error of each tensor and what is allowed; ends with status 15 if one is further off.",
      wan_command_selftest },
    { "inspect", FOR_INSPECT, 1, "FILE|DIR",
      "say what a checkpoint holds, or which command made a clip",
      "For a checkpoint: its kind, tensors, types, bytes, and what is missing or unexpected.  For a clip made by wan: the "
      "command that makes it again.",
      wan_command_inspect },
    { "convert", FOR_CONVERT, 2, "IN OUT",
      "pack a model into one file or a folder, in other types if asked",
      "IN is whatever -m of generate takes.  OUT.gguf or OUT.safetensors is one file with every part that IN has: transformer, "
      "text encoder, VAE, tokenizer and defaults; any other name is a new folder that diffusers reads too.  Memory stays "
      "small whatever the model; OUT appears only when complete.",
      wan_command_convert },
    { "bench", FOR_BENCH, 0, "",
      "time each stage alone",
      "Reports wall and CPU seconds, operations and memory of each stage, how near it comes to what this machine's registers "
      "and memory can do (of floor), and go or no-go against a budget.  The weights are those of -m, or full-size random "
      "ones (--synthetic), whose pictures mean nothing.",
      wan_command_bench },
    { "quality", FOR_QUALITY, 2, "A B",
      "say how far one clip is from another",
      "A and B are runs of the same seed: .safetensors of wan generate or wan stage decode, a folder of numbered PNG files or "
      "NAME-%05d.png, or a video.  Reports PSNR, SSIM and mean absolute error of the clip, the median and the worst chunk.  "
      "Videos have lost something themselves: compare tensors or PNG files where you can.",
      wan_command_quality },
    { "doctor", FOR_DOCTOR, 0, "",
      "say what this machine has and what will be used",
      "Processor, memory, GPU, driver and libraries, and the device and precision that the other commands would choose, with the "
      "reason.",
      wan_command_doctor },
};
// clang-format on

const command *wan_commands(size_t *count) {
    *count = sizeof list / sizeof list[0];
    return list;
}

const command *wan_command_find(const char *name) {
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    return NULL;
}
