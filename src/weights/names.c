/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/names.h"

#include <string.h>

/* How a name is read: # stands for digits, @ for one component without dots, a final $ for the
 * rest, which `tail` may translate further.  In `to` each # or @ takes the next thing read. */
typedef struct rule {
    const char *from, *to;
    const struct rule *tail;
} rule;

#define CAPTURES 4

typedef struct match {
    const char *at[CAPTURES];
    size_t length[CAPTURES];
    int count;
    const char *rest; /* of $, or NULL */
} match;

/* clang-format off */
static const rule dit_diffusers[] = {
    { "condition_embedder.time_embedder.linear_1.$", "time_embedding.0.$", NULL },
    { "condition_embedder.time_embedder.linear_2.$", "time_embedding.2.$", NULL },
    { "condition_embedder.text_embedder.linear_1.$", "text_embedding.0.$", NULL },
    { "condition_embedder.text_embedder.linear_2.$", "text_embedding.2.$", NULL },
    { "condition_embedder.time_proj.$",              "time_projection.1.$", NULL },
    { "condition_embedder.image_embedder.norm1.$",         "img_emb.proj.0.$", NULL },
    { "condition_embedder.image_embedder.ff.net.0.proj.$", "img_emb.proj.1.$", NULL },
    { "condition_embedder.image_embedder.ff.net.2.$",      "img_emb.proj.3.$", NULL },
    { "condition_embedder.image_embedder.norm2.$",         "img_emb.proj.4.$", NULL },
    { "condition_embedder.image_embedder.pos_embed",       "img_emb.emb_pos", NULL },
    { "blocks.#.scale_shift_table",     "blocks.#.modulation", NULL },
    { "blocks.#.attn1.to_q.$",          "blocks.#.self_attn.q.$", NULL },
    { "blocks.#.attn1.to_k.$",          "blocks.#.self_attn.k.$", NULL },
    { "blocks.#.attn1.to_v.$",          "blocks.#.self_attn.v.$", NULL },
    { "blocks.#.attn1.to_out.0.$",      "blocks.#.self_attn.o.$", NULL },
    { "blocks.#.attn1.$",               "blocks.#.self_attn.$", NULL },
    { "blocks.#.attn2.to_q.$",          "blocks.#.cross_attn.q.$", NULL },
    { "blocks.#.attn2.to_k.$",          "blocks.#.cross_attn.k.$", NULL },
    { "blocks.#.attn2.to_v.$",          "blocks.#.cross_attn.v.$", NULL },
    { "blocks.#.attn2.to_out.0.$",      "blocks.#.cross_attn.o.$", NULL },
    { "blocks.#.attn2.add_k_proj.$",    "blocks.#.cross_attn.k_img.$", NULL },
    { "blocks.#.attn2.add_v_proj.$",    "blocks.#.cross_attn.v_img.$", NULL },
    { "blocks.#.attn2.norm_added_k.$",  "blocks.#.cross_attn.norm_k_img.$", NULL },
    { "blocks.#.attn2.$",               "blocks.#.cross_attn.$", NULL },
    { "blocks.#.norm2.$",               "blocks.#.norm3.$", NULL }, /* the affine one, before cross-attention */
    { "blocks.#.ffn.net.0.proj.$",      "blocks.#.ffn.0.$", NULL },
    { "blocks.#.ffn.net.2.$",           "blocks.#.ffn.2.$", NULL },
    { "scale_shift_table",              "head.modulation", NULL },
    { "proj_out.$",                     "head.head.$", NULL },
    { NULL, NULL, NULL },
};
static const rule text_diffusers[] = {
    { "shared.$",                   "token_embedding.$", NULL },
    { "encoder.embed_tokens.$",     "token_embedding.$", NULL },
    { "encoder.final_layer_norm.$", "norm.$", NULL },
    { "encoder.block.#.layer.0.layer_norm.$",    "blocks.#.norm1.$", NULL },
    { "encoder.block.#.layer.1.layer_norm.$",    "blocks.#.norm2.$", NULL },
    { "encoder.block.#.layer.0.SelfAttention.relative_attention_bias.$",
                                                 "blocks.#.pos_embedding.embedding.$", NULL },
    { "encoder.block.#.layer.0.SelfAttention.$", "blocks.#.attn.$", NULL },
    { "encoder.block.#.layer.1.DenseReluDense.wi_0.$", "blocks.#.ffn.gate.0.$", NULL },
    { "encoder.block.#.layer.1.DenseReluDense.wi_1.$", "blocks.#.ffn.fc1.$", NULL },
    { "encoder.block.#.layer.1.DenseReluDense.wo.$",   "blocks.#.ffn.fc2.$", NULL },
    { NULL, NULL, NULL },
};
static const rule text_gguf[] = {
    { "token_embd.$",             "token_embedding.$", NULL },
    { "enc.output_norm.$",        "norm.$", NULL },
    { "enc.blk.#.attn_norm.$",    "blocks.#.norm1.$", NULL },
    { "enc.blk.#.ffn_norm.$",     "blocks.#.norm2.$", NULL },
    { "enc.blk.#.attn_rel_b.$",   "blocks.#.pos_embedding.embedding.$", NULL },
    { "enc.blk.#.attn_q.$",       "blocks.#.attn.q.$", NULL },
    { "enc.blk.#.attn_k.$",       "blocks.#.attn.k.$", NULL },
    { "enc.blk.#.attn_v.$",       "blocks.#.attn.v.$", NULL },
    { "enc.blk.#.attn_o.$",       "blocks.#.attn.o.$", NULL },
    { "enc.blk.#.ffn_gate.$",     "blocks.#.ffn.gate.0.$", NULL },
    { "enc.blk.#.ffn_up.$",       "blocks.#.ffn.fc1.$", NULL },
    { "enc.blk.#.ffn_down.$",     "blocks.#.ffn.fc2.$", NULL },
    { NULL, NULL, NULL },
};
static const rule residual[] = {
    { "norm1.$",         "residual.0.$", NULL },
    { "conv1.$",         "residual.2.$", NULL },
    { "norm2.$",         "residual.3.$", NULL },
    { "conv2.$",         "residual.6.$", NULL },
    { "conv_shortcut.$", "shortcut.$", NULL },
    { NULL, NULL, NULL },
};
static const rule vae_diffusers[] = {
    { "quant_conv.$",      "conv1.$", NULL },
    { "post_quant_conv.$", "conv2.$", NULL },
    { "@.conv_in.$",       "@.conv1.$", NULL },
    { "@.conv_out.$",      "@.head.2.$", NULL },
    { "@.norm_out.$",      "@.head.0.$", NULL },
    { "@.mid_block.attentions.0.$", "@.middle.1.$", NULL },
    { "@.mid_block.resnets.0.$",    "@.middle.0.$", residual },
    { "@.mid_block.resnets.1.$",    "@.middle.2.$", residual },
    { "encoder.down_blocks.#.resnets.#.$", "encoder.downsamples.#.downsamples.#.$", residual },
    { "decoder.up_blocks.#.resnets.#.$",   "decoder.upsamples.#.upsamples.#.$", residual },
    { "encoder.down_blocks.#.downsampler.resample.1.$", "encoder.downsamples.#.resample.$", NULL },
    { "encoder.down_blocks.#.downsampler.time_conv.$",  "encoder.downsamples.#.time_conv.$", NULL },
    { "decoder.up_blocks.#.upsampler.resample.1.$",     "decoder.upsamples.#.resample.$", NULL },
    { "decoder.up_blocks.#.upsampler.time_conv.$",      "decoder.upsamples.#.time_conv.$", NULL },
    { NULL, NULL, NULL },
};
/* A level's resampler is its last member, whose index depends on the number of residual blocks. */
static const rule vae_original[] = {
    { "encoder.downsamples.#.downsamples.#.resample.1.$", "encoder.downsamples.#.resample.$", NULL },
    { "encoder.downsamples.#.downsamples.#.time_conv.$",  "encoder.downsamples.#.time_conv.$", NULL },
    { "decoder.upsamples.#.upsamples.#.resample.1.$",     "decoder.upsamples.#.resample.$", NULL },
    { "decoder.upsamples.#.upsamples.#.time_conv.$",      "decoder.upsamples.#.time_conv.$", NULL },
    { NULL, NULL, NULL },
};
/* MLX packages: modules have other names in a few places; what is left is diffusers'. */
static const rule dit_mlx[] = {
    { "blocks.#.ffn.net.0.$", "blocks.#.ffn.0.$", NULL },
    { "blocks.#.ffn.net.1.$", "blocks.#.ffn.2.$", NULL },
    { "$",                    "$", dit_diffusers },
    { NULL, NULL, NULL },
};
static const rule residual_mlx[] = {
    { "norm1.weight",           "residual.0.gamma", NULL },
    { "norm2.weight",           "residual.3.gamma", NULL },
    { "conv1.conv3d.$",         "residual.2.$", NULL },
    { "conv2.conv3d.$",         "residual.6.$", NULL },
    { "conv_shortcut.conv3d.$", "shortcut.$", NULL },
    { "$",                      "$", residual },
    { NULL, NULL, NULL },
};
static const rule vae_mlx[] = {
    { "quant_conv.conv3d.$",      "conv1.$", NULL },
    { "post_quant_conv.conv3d.$", "conv2.$", NULL },
    { "@.conv_in.conv3d.$",       "@.conv1.$", NULL },
    { "@.conv_out.conv3d.$",      "@.head.2.$", NULL },
    { "@.norm_out.weight",        "@.head.0.gamma", NULL },
    { "@.mid_block.attentions.0.norm.weight", "@.middle.1.norm.gamma", NULL },
    { "@.mid_block.resnets.0.$",              "@.middle.0.$", residual_mlx },
    { "@.mid_block.resnets.1.$",              "@.middle.2.$", residual_mlx },
    { "encoder.down_blocks.#.resnets.#.$", "encoder.downsamples.#.downsamples.#.$", residual_mlx },
    { "decoder.up_blocks.#.resnets.#.$",   "decoder.upsamples.#.upsamples.#.$", residual_mlx },
    { "encoder.down_blocks.#.downsampler.resample_conv.$",    "encoder.downsamples.#.resample.$", NULL },
    { "encoder.down_blocks.#.downsampler.time_conv.conv3d.$", "encoder.downsamples.#.time_conv.$", NULL },
    { "decoder.up_blocks.#.upsampler.resample_conv.$",        "decoder.upsamples.#.resample.$", NULL },
    { "decoder.up_blocks.#.upsampler.time_conv.conv3d.$",     "decoder.upsamples.#.time_conv.$", NULL },
    { "$",                                                    "$", vae_diffusers },
    { NULL, NULL, NULL },
};
static const rule none[] = { { NULL, NULL, NULL } };
static const rule *const rules[PARTS][LAYOUT_UNKNOWN] = {
    [PART_DIT]  = { none, dit_diffusers, none, dit_mlx },
    [PART_TEXT] = { none, text_diffusers, text_gguf, none },
    [PART_VAE]  = { vae_original, vae_diffusers, vae_original, vae_mlx },
};

/* Names that only the original spelling of that part has. */
static const rule dit_marks[] = {
    { "blocks.#.self_attn.$", NULL, NULL }, { "blocks.#.cross_attn.$", NULL, NULL },
    { "blocks.#.modulation", NULL, NULL },  { "head.modulation", NULL, NULL },
    { "head.head.$", NULL, NULL },          { "text_embedding.$", NULL, NULL },
    { "time_embedding.$", NULL, NULL },     { "time_projection.$", NULL, NULL },
    { NULL, NULL, NULL },
};
static const rule text_marks[] = {
    { "token_embedding.$", NULL, NULL },        { "blocks.#.attn.$", NULL, NULL },
    { "blocks.#.pos_embedding.$", NULL, NULL }, { "blocks.#.ffn.gate.$", NULL, NULL },
    { "blocks.#.ffn.fc1.$", NULL, NULL },       { "blocks.#.ffn.fc2.$", NULL, NULL },
    { NULL, NULL, NULL },
};
static const rule vae_marks[] = {
    { "encoder.downsamples.$", NULL, NULL }, { "decoder.upsamples.$", NULL, NULL },
    { "@.middle.#.$", NULL, NULL },          { "@.head.#.$", NULL, NULL },
    { NULL, NULL, NULL },
};
/* Names that tell an MLX package from diffusers' files. */
static const rule mlx_marks[] = {
    { "blocks.#.ffn.net.1.$", NULL, NULL },
    { "@.conv_in.conv3d.$", NULL, NULL },
    { "@.conv_out.conv3d.$", NULL, NULL },
    { NULL, NULL, NULL },
};
static const rule *const original_marks[PARTS] = { dit_marks, text_marks, vae_marks };

static const char *const prefixes[PARTS][5] = {
    [PART_DIT] = { "model.diffusion_model.", "diffusion_model.", "model.", "net.", NULL },
    [PART_VAE] = { "first_stage_model.", "vae.", NULL },
};
/* clang-format on */

const char *wan_part_name(part p) {
    static const char *const name[PARTS] = {"transformer", "text encoder", "VAE"};
    return name[p];
}

const char *wan_name_strip(const char *name, part which) {
    for (const char *const *p = prefixes[which]; *p; p++)
        if (!strncmp(name, *p, strlen(*p)))
            name += strlen(*p);
    return name;
}

static size_t component(const char *name, char kind) {
    return kind == '#' ? strspn(name, "0123456789") : strcspn(name, ".");
}

static bool matches(const char *name, const char *pattern, match *m) {
    *m = (match){0};
    for (; *pattern; pattern++) {
        if (*pattern == '$') {
            m->rest = name;
            return true;
        }
        if (*pattern == '#' || *pattern == '@') {
            size_t n = component(name, *pattern);
            if (n == 0 || m->count == CAPTURES)
                return false;
            m->at[m->count] = name;
            m->length[m->count++] = n;
            name += n;
        } else if (*name++ != *pattern) {
            return false;
        }
    }
    return *name == '\0';
}

/* Rules also serve backwards, from ours to theirs. */
static const rule *first_match(const rule *r, bool back, const char *name, match *m) {
    for (; r->from; r++)
        if (matches(name, back ? r->to : r->from, m))
            return r;
    return NULL;
}

static void append(char *out, size_t size, const char *text, size_t n) {
    size_t at = strlen(out), left = size - at - 1;
    n = n < left ? n : left;
    memcpy(out + at, text, n);
    out[at + n] = '\0';
}

static void translate(const char *name, const rule *table, bool back, char *out, size_t size) {
    match m;
    const rule *r = first_match(table, back, name, &m);
    if (!r) {
        append(out, size, name, strlen(name));
        return;
    }
    int next = 0;
    for (const char *p = back ? r->from : r->to; *p; p++) {
        if (*p == '$' && r->tail)
            translate(m.rest, r->tail, back, out, size);
        else if (*p == '$')
            append(out, size, m.rest, strlen(m.rest));
        else if (*p == '#' || *p == '@')
            append(out, size, m.at[next], m.length[next]), next++;
        else
            append(out, size, p, 1);
    }
}

void wan_name_translate(const char *name, part which, layout from, char *out, size_t size) {
    out[0] = '\0';
    name = wan_name_strip(name, which);
    translate(name, from == LAYOUT_UNKNOWN ? none : rules[which][from], false, out, size);
}

void wan_name_diffusers(const char *name, part which, char *out, size_t size) {
    out[0] = '\0';
    translate(name, rules[which][LAYOUT_DIFFUSERS], true, out, size);
}

size_t wan_layout_hits(const char *const *names, size_t count, part which, layout spelling) {
    const rule *marks =
        spelling == LAYOUT_ORIGINAL ? original_marks[which] : rules[which][spelling];
    if (spelling == LAYOUT_MLX || (which == PART_VAE && spelling == LAYOUT_GGUF))
        marks = none; /* spelled as diffusers' (but for marks), as the original */
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) {
        match m;
        hits += !strstr(names[i], "lora_") &&
                first_match(marks, false, wan_name_strip(names[i], which), &m) != NULL;
    }
    return hits;
}

layout wan_layout_detect(const char *const *names, size_t count, part which) {
    layout best = LAYOUT_UNKNOWN;
    size_t most = 0;
    for (int l = 0; l < LAYOUT_UNKNOWN; l++) {
        size_t hits = wan_layout_hits(names, count, which, (layout)l);
        if (hits > most) {
            most = hits;
            best = (layout)l;
        }
    }
    match m;
    for (size_t i = 0; i < count && best == LAYOUT_DIFFUSERS && which != PART_TEXT; i++)
        if (first_match(mlx_marks, false, names[i], &m))
            best = LAYOUT_MLX;
    return best;
}
