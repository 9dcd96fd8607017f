/* SPDX-License-Identifier: Apache-2.0 */
/* convert.h - a model of any readable layout becomes one file, or a folder that diffusers reads.
 * OUT.gguf and OUT.safetensors hold all parts: transformer tensors have the official names, the
 * others ours behind "text_encoder." and "vae."; the tokenizer, the VAE's statistics and the
 * model's defaults travel with them (docs/formats.md).  Any other name is a folder's.  Memory stays
 * at a few blocks of rows, whatever the model. */
#ifndef WAN_PIPELINE_CONVERT_H
#define WAN_PIPELINE_CONVERT_H

#include "pipeline/model.h"

typedef struct convert_options {
    /* "keep" (as stored), "q8_0", "q4_k_m", "fp8" and so on: wan_recipe_names.  Attention and
     * feed-forward matrices, and those of the text encoder, take the recipe's types; everything
     * else stays as it is stored.  What the new file cannot hold becomes F16. */
    const char *recipe;
    const char *rules; /* for single tensors, over the recipe (rules.h); NULL: none */
    const char *licence, *base_model; /* tags; NULL: the source's licence, and its file name */
    int (*cancelled)(void *user);
    void *cancel_user;
    void (*progress)(void *user, const char *tensor, uint64_t done,
                     uint64_t total); /* bytes read; may be NULL */
    void *progress_user;
} convert_options;

/* Parts that the model lacks are left out, with a warning to the model's log; a model of none is an
 * error.  The file appears only when complete. */
wan_status wan_convert(wan_model *m, const char *out, const convert_options *o, error *err);

/* The recipes' names, NULL at the end. */
const char *const *wan_recipe_names(void);

/* What a tensor becomes under a recipe: the rule alone, for tests and inspection.  WAN_DTYPES:
 * stays as stored. */
dtype wan_recipe_type(const char *recipe, part p, const char *name, tensor t);

#endif
