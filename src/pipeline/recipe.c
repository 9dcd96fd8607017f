/* SPDX-License-Identifier: Apache-2.0 */
/* Which type a tensor takes: the rules of the tools that made the published files (formats.md 3.4,
 * dit.md 5.1). */
#include <string.h>
#include <strings.h>

#include "pipeline/convert.h"

/* `values` are the attention's value matrices, `down` the second of the feed-forward, `table` the
 * text encoder's embedding: the ones that suffer most. */
typedef struct recipe {
    const char *name;
    dtype type, values, down, table;
} recipe;

/* clang-format off */
static const recipe recipes[] = {
    { "q8_0",   WAN_Q8_0,   WAN_Q8_0,   WAN_Q8_0,   WAN_Q8_0 },
    { "q6_k",   WAN_Q6_K,   WAN_Q6_K,   WAN_Q6_K,   WAN_Q6_K },
    { "q5_k_m", WAN_Q5_K,   WAN_Q6_K,   WAN_Q6_K,   WAN_Q6_K },
    { "q5_k_s", WAN_Q5_K,   WAN_Q5_K,   WAN_Q5_K,   WAN_Q6_K },
    { "q4_k_m", WAN_Q4_K,   WAN_Q6_K,   WAN_Q6_K,   WAN_Q6_K },
    { "q4_k",   WAN_Q4_K,   WAN_Q4_K,   WAN_Q4_K,   WAN_Q4_K },
    { "q3_k",   WAN_Q3_K,   WAN_Q3_K,   WAN_Q3_K,   WAN_Q6_K },
    { "q2_k",   WAN_Q2_K,   WAN_Q3_K,   WAN_Q2_K,   WAN_Q6_K },
    { "q5_0",   WAN_Q5_0,   WAN_Q5_0,   WAN_Q5_1,   WAN_Q8_0 },
    { "q5_1",   WAN_Q5_1,   WAN_Q5_1,   WAN_Q5_1,   WAN_Q8_0 },
    { "q4_0",   WAN_Q4_0,   WAN_Q4_0,   WAN_Q4_1,   WAN_Q8_0 },
    { "q4_1",   WAN_Q4_1,   WAN_Q4_1,   WAN_Q4_1,   WAN_Q8_0 },
    { "iq4_nl", WAN_IQ4_NL, WAN_IQ4_NL, WAN_IQ4_NL, WAN_Q8_0 },
    { "iq4_xs", WAN_IQ4_XS, WAN_IQ4_XS, WAN_IQ4_XS, WAN_Q6_K },
    { "fp8",    WAN_F8_E4M3, WAN_F8_E4M3, WAN_F8_E4M3, WAN_F8_E4M3 },
    { "int8",   WAN_I8,     WAN_I8,     WAN_I8,     WAN_I8   },
    { "f32",    WAN_F32,    WAN_F32,    WAN_F32,    WAN_F32  },
    { "f16",    WAN_F16,    WAN_F16,    WAN_F16,    WAN_F16  },
    { "bf16",   WAN_BF16,   WAN_BF16,   WAN_BF16,   WAN_BF16 },
};
/* clang-format on */

#define COUNT (sizeof recipes / sizeof recipes[0])

const char *const *wan_recipe_names(void) {
    static const char *const names[] = {
        "keep", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k", "q3_k", "q2_k", "q5_0",
        "q5_1", "q4_0", "q4_1", "iq4_nl", "iq4_xs", "fp8",    "int8", "f32",  "f16",  "bf16", NULL};
    return names;
}

static const recipe *find(const char *name) {
    for (size_t i = 0; i < COUNT; i++)
        if (!strcasecmp(recipes[i].name, name))
            return &recipes[i];
    return NULL;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* Matrices of attention and feed-forward; embedders, projections of time, norms and the head are
 * left alone. */
static bool is_candidate(part p, const char *name, tensor t) {
    static const char *const spared[] = {
        "modulation",      "patch_embedding.", "text_embedding.", "time_projection.",
        "time_embedding.", "img_emb.",         "head.",           "pos_embedding."};
    if (p == PART_VAE || t.rank != 2 || wan_elements(t) <= 1024 || !ends_with(name, ".weight"))
        return false;
    for (size_t i = 0; i < sizeof spared / sizeof spared[0]; i++)
        if (strstr(name, spared[i]))
            return false;
    return true;
}

dtype wan_recipe_type(const char *name, part p, const char *tensor_name, tensor t) {
    const recipe *r = find(name);
    if (!r || !is_candidate(p, tensor_name, t))
        return WAN_DTYPES;
    dtype want = r->type;
    if (p == PART_DIT && ends_with(tensor_name, ".v.weight"))
        want = r->values;
    else if (p == PART_DIT && ends_with(tensor_name, ".ffn.2.weight"))
        want = r->down;
    else if (!strcmp(tensor_name, "token_embedding.weight"))
        want = r->table;
    if (t.dim[1] % wan_dtype(want)->block == 0)
        return want;
    /* Rows that blocks do not divide: the next finer type that does, as the published files have
     * it. */
    return t.dim[1] % 32 == 0 ? WAN_Q8_0 : WAN_F16;
}
