/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/synthetic.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "io/gguf_write.h"
#include "io/safetensors.h"

enum {
    DIM = 3072,
    FFN = 14336,
    CHANNELS = 48,
    TEXT = 4096,
    TEXT_FFN = 10240,
    VOCAB = 256384,
    HEADS = 64
};

#define CHUNK (1 << 20) /* bytes made at a time */

/* The list of a part's tensors is walked twice: once to announce them, once to fill them. */
typedef struct walk {
    gguf_writer *w;     /* or, for codes with scales, */
    outfile *file;      /* safetensors, after its tensors were listed */
    named_tensor *list; /* names owned */
    size_t count;
    const synthetic *s;
    bool fill;
    uint64_t state; /* random */
    char *chunk;
    error err;
} walk;

static uint64_t next_random(walk *k) {
    k->state ^= k->state << 13;
    k->state ^= k->state >> 7;
    k->state ^= k->state << 17;
    return k->state;
}

/* Uniform with that mean and standard deviation. */
static float next_value(walk *k, float mean, float std) {
    float u = (float)(next_random(k) >> 40) * 0x1p-24f - 0.5f;
    return mean + u * 3.4641016f * std;
}

/* Where a block's f16 scales lie, and the standard deviation of its codes when they are random
 * bits. */
typedef struct block_form {
    dtype type;
    int scale, min; /* byte offsets; -1: none */
    float spread;
} block_form;

static const block_form forms[] = {
    {WAN_Q8_0, 0, -1, 73.9f}, {WAN_Q4_0, 0, -1, 4.6f},  {WAN_Q5_0, 0, -1, 9.2f},
    {WAN_Q4_K, 0, 2, 190.0f}, {WAN_Q5_K, 0, 2, 380.0f}, {WAN_Q6_K, 208, -1, 1365},
    {WAN_IQ4_NL, 0, -1, 64},
};

static const block_form *form_of(dtype t) {
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (forms[i].type == t)
            return &forms[i];
    return NULL;
}

static void fill_blocks(walk *k, const block_form *f, size_t blocks, float std) {
    int bytes = wan_dtype(f->type)->bytes;
    uint16_t scale = wan_half_from_float(std / f->spread);
    for (size_t b = 0; b < blocks; b++) {
        char *p = k->chunk + b * (size_t)bytes;
        for (int i = 0; i < bytes; i += 8) {
            uint64_t r = next_random(k);
            memcpy(p + i, &r, (size_t)(bytes - i < 8 ? bytes - i : 8));
        }
        memcpy(p + f->scale, &scale, 2);
        if (f->min >= 0)
            memcpy(p + f->min, &scale, 2);
    }
}

static bool has_scales(dtype t) {
    return t == WAN_F8_E4M3 || t == WAN_I8;
}

/* Random bits: their standard deviation as int8, and as fp8 without its two NaN. */
#define SPREAD_I8 73.9f
#define SPREAD_F8 100.1f

static void fill_codes(walk *k, dtype t, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        uint64_t r = next_random(k);
        memcpy(k->chunk + i, &r, n - i < 8 ? n - i : 8);
    }
    for (size_t i = 0; i < n && t == WAN_F8_E4M3; i++)
        if ((k->chunk[i] & 0x7f) == 0x7f)
            k->chunk[i] ^= 1;
}

static void fill_plain(walk *k, dtype t, size_t n, float mean, float std) {
    for (size_t i = 0; i < n; i++) {
        float v = next_value(k, mean, std);
        uint16_t half = wan_half_from_float(v), brain = wan_brain_from_float(v);
        if (t == WAN_F32)
            memcpy(k->chunk + 4 * i, &v, 4);
        else
            memcpy(k->chunk + 2 * i, t == WAN_F16 ? &half : &brain, 2);
    }
}

static void list(walk *k, const char *name, tensor t) {
    named_tensor *grown = realloc(k->list, (k->count + 1) * sizeof *grown);
    char *copy = strdup(name);
    if (grown)
        k->list = grown;
    if (!grown || !copy) {
        free(copy);
        wan_fail(&k->err, WAN_E_MEMORY, "out of memory for synthetic weights");
        return;
    }
    k->list[k->count++] = (named_tensor){copy, t};
}

static void announce(walk *k, const char *name, tensor t) {
    if (has_scales(k->s->type))
        list(k, name, t);
    else
        wan_gguf_write_tensor(k->w, name, t);
}

static void put(walk *k, size_t size) {
    if (k->w)
        wan_gguf_write_data(k->w, k->chunk, size, &k->err);
    else
        wan_outfile_write(k->file, k->chunk, size, &k->err);
}

static void emit_one(walk *k, const char *name, dtype t, int rank, const int64_t *dim, float mean,
                     float std) {
    if (k->err.code)
        return;
    tensor x = wan_tensor(t, rank, dim, NULL);
    if (!k->fill) {
        announce(k, name, x);
        return;
    }
    const block_form *f = form_of(t);
    size_t unit = (size_t)wan_dtype(t)->bytes, units = wan_bytes(x) / unit;
    while (units && !k->err.code) {
        size_t n = units < CHUNK / unit ? units : CHUNK / unit;
        if (f)
            fill_blocks(k, f, n, std);
        else if (has_scales(t))
            fill_codes(k, t, n);
        else
            fill_plain(k, t, n, mean, std);
        put(k, n * unit);
        units -= n;
    }
}

/* Codes are followed by a scale for each row. */
static void emit(walk *k, const char *name, dtype t, int rank, const int64_t *dim, float mean,
                 float std) {
    char scale[160];
    emit_one(k, name, t, rank, dim, mean, std);
    if (!has_scales(t))
        return;
    snprintf(scale, sizeof scale, "%s_scale", name);
    std /= t == WAN_I8 ? SPREAD_I8 : SPREAD_F8;
    emit_one(k, scale, WAN_F32, WAN_DIMS(dim[0], 1), std, 0.1f * std);
}

__attribute__((format(printf, 2, 3))) static const char *named(char text[128], const char *format,
                                                               ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(text, 128, format, args);
    va_end(args);
    return text;
}

/* ----------------------------------------------------------------------------------------------------
 * transformer */

static void emit_linear(walk *k, const char *name, int64_t out, int64_t in, dtype t) {
    char text[128];
    emit(k, named(text, "%s.weight", name), t, WAN_DIMS(out, in), 0, 1 / sqrtf((float)in));
    emit(k, named(text, "%s.bias", name), WAN_F32, WAN_DIMS(out), 0, 0.01f);
}

static void emit_attention(walk *k, int block, const char *which) {
    char text[128];
    for (const char *p = "qkvo"; *p; p++) {
        named(text, "blocks.%d.%s.%c", block, which, *p);
        char name[128];
        memcpy(name, text, sizeof name);
        emit_linear(k, name, DIM, DIM, k->s->type);
    }
    emit(k, named(text, "blocks.%d.%s.norm_q.weight", block, which), WAN_F32, WAN_DIMS(DIM), 1,
         0.05f);
    emit(k, named(text, "blocks.%d.%s.norm_k.weight", block, which), WAN_F32, WAN_DIMS(DIM), 1,
         0.05f);
}

static void emit_block(walk *k, int i) {
    char text[128], name[128];
    emit(k, named(text, "blocks.%d.modulation", i), WAN_F32, WAN_DIMS(1, 6, DIM), 0, 0.1f);
    emit_attention(k, i, "self_attn");
    emit_attention(k, i, "cross_attn");
    emit(k, named(text, "blocks.%d.norm3.weight", i), WAN_F32, WAN_DIMS(DIM), 1, 0.05f);
    emit(k, named(text, "blocks.%d.norm3.bias", i), WAN_F32, WAN_DIMS(DIM), 0, 0.05f);
    emit_linear(k, named(name, "blocks.%d.ffn.0", i), FFN, DIM, k->s->type);
    emit_linear(k, named(name, "blocks.%d.ffn.2", i), DIM, FFN, k->s->type);
}

static void emit_dit(walk *k) {
    emit(k, "patch_embedding.weight", WAN_F32, WAN_DIMS(DIM, CHANNELS, 1, 2, 2), 0,
         1 / sqrtf(4 * CHANNELS));
    emit(k, "patch_embedding.bias", WAN_F32, WAN_DIMS(DIM), 0, 0.01f);
    emit_linear(k, "text_embedding.0", DIM, TEXT, WAN_F16);
    emit_linear(k, "text_embedding.2", DIM, DIM, WAN_F16);
    emit_linear(k, "time_embedding.0", DIM, 256, WAN_F16);
    emit_linear(k, "time_embedding.2", DIM, DIM, WAN_F16);
    emit_linear(k, "time_projection.1", 6 * DIM, DIM, WAN_F16);
    for (int i = 0; i < (k->s->layers ? k->s->layers : 30); i++)
        emit_block(k, i);
    emit(k, "head.modulation", WAN_F32, WAN_DIMS(1, 2, DIM), 0, 0.1f);
    emit_linear(k, "head.head", 4 * CHANNELS, DIM, WAN_F16);
}

/* ---------------------------------------------------------------------------------------------------
 * text encoder */

static void emit_text_layer(walk *k, int i) {
    char text[128];
    dtype t = k->s->type;
    emit(k, named(text, "enc.blk.%d.attn_norm.weight", i), WAN_F32, WAN_DIMS(TEXT), 1, 0.05f);
    for (const char *p = "qkvo"; *p; p++) /* T5 has no 1/sqrt(64): keep the logits small */
        emit(k, named(text, "enc.blk.%d.attn_%c.weight", i, *p), t, WAN_DIMS(TEXT, TEXT), 0,
             *p == 'q' ? 0.00195f : 0.0156f);
    emit(k, named(text, "enc.blk.%d.attn_rel_b.weight", i), WAN_F32, WAN_DIMS(32, HEADS), 0, 0.5f);
    emit(k, named(text, "enc.blk.%d.ffn_norm.weight", i), WAN_F32, WAN_DIMS(TEXT), 1, 0.05f);
    emit(k, named(text, "enc.blk.%d.ffn_gate.weight", i), t, WAN_DIMS(TEXT_FFN, TEXT), 0, 0.0156f);
    emit(k, named(text, "enc.blk.%d.ffn_up.weight", i), t, WAN_DIMS(TEXT_FFN, TEXT), 0, 0.0156f);
    emit(k, named(text, "enc.blk.%d.ffn_down.weight", i), t, WAN_DIMS(TEXT, TEXT_FFN), 0, 0.00988f);
}

static void emit_text(walk *k) {
    emit(k, "token_embd.weight", k->s->type, WAN_DIMS(VOCAB, TEXT), 0, 1);
    for (int i = 0; i < (k->s->text_layers ? k->s->text_layers : 24); i++)
        emit_text_layer(k, i);
    emit(k, "enc.output_norm.weight", WAN_F32, WAN_DIMS(TEXT), 0.08f, 0.004f);
}

/* ------------------------------------------------------------------------------------------------------------
 * VAE */

static void emit_conv(walk *k, const char *name, int64_t out, int64_t in, int rank, int kt,
                      int kh) {
    char text[128];
    const int64_t dim[5] = {out, in, rank == 5 ? kt : kh, kh, kh};
    float fan = (float)(in * kt * kh * kh);
    emit(k, named(text, "%s.weight", name), WAN_F16, rank, dim, 0, 1 / sqrtf(fan));
    emit(k, named(text, "%s.bias", name), WAN_F16, WAN_DIMS(out), 0, 0.02f);
}

static void emit_gamma(walk *k, const char *name, int64_t c, int rank) {
    emit(k, name, WAN_F16, rank, (int64_t[]){c, 1, 1, 1}, 1, 0.05f);
}

static void emit_residual(walk *k, const char *at, int64_t in, int64_t out) {
    char name[128];
    emit_gamma(k, named(name, "%s.residual.0.gamma", at), in, 4);
    emit_conv(k, named(name, "%s.residual.2", at), out, in, 5, 3, 3);
    emit_gamma(k, named(name, "%s.residual.3.gamma", at), out, 4);
    emit_conv(k, named(name, "%s.residual.6", at), out, out, 5, 3, 3);
    if (in != out)
        emit_conv(k, named(name, "%s.shortcut", at), out, in, 5, 1, 1);
}

static void emit_middle(walk *k, const char *half, int64_t c) {
    char name[128];
    emit_residual(k, named(name, "%s.middle.0", half), c, c);
    emit_gamma(k, named(name, "%s.middle.1.norm.gamma", half), c, 3);
    emit_conv(k, named(name, "%s.middle.1.to_qkv", half), 3 * c, c, 4, 1, 1);
    emit_conv(k, named(name, "%s.middle.1.proj", half), c, c, 4, 1, 1);
    emit_residual(k, named(name, "%s.middle.2", half), c, c);
}

/* A level's residual blocks, then its resampler as one more member of the list. */
static void emit_level(walk *k, const char *list, int level, int blocks, int64_t in, int64_t out,
                       bool resample, int64_t time_out) {
    char name[128], at[96];
    for (int j = 0; j < blocks; j++) {
        snprintf(at, sizeof at, "%s.%d.%s.%d", list, level, strrchr(list, '.') + 1, j);
        emit_residual(k, at, j ? out : in, out);
    }
    snprintf(at, sizeof at, "%s.%d.%s.%d", list, level, strrchr(list, '.') + 1, blocks);
    if (resample)
        emit_conv(k, named(name, "%s.resample.1", at), out, out, 4, 1, 3);
    if (time_out) {
        const int64_t dim[5] = {time_out, out, 3, 1, 1};
        emit(k, named(name, "%s.time_conv.weight", at), WAN_F16, 5, dim, 0,
             1 / sqrtf(3.0f * (float)out));
        emit(k, named(name, "%s.time_conv.bias", at), WAN_F16, WAN_DIMS(time_out), 0, 0.02f);
    }
}

static void emit_vae(walk *k) {
    static const int64_t down[] = {160, 160, 320, 640, 640}, up[] = {1024, 1024, 1024, 512, 256};
    emit_conv(k, "conv1", 2 * CHANNELS, 2 * CHANNELS, 5, 1, 1);
    emit_conv(k, "conv2", CHANNELS, CHANNELS, 5, 1, 1);
    emit_conv(k, "encoder.conv1", 160, 12, 5, 3, 3);
    for (int i = 0; i < 4; i++)
        emit_level(k, "encoder.downsamples", i, 2, down[i], down[i + 1], i < 3,
                   i == 1 || i == 2 ? down[i + 1] : 0);
    emit_middle(k, "encoder", 640);
    emit_gamma(k, "encoder.head.0.gamma", 640, 4);
    emit_conv(k, "encoder.head.2", 2 * CHANNELS, 640, 5, 3, 3);
    emit_conv(k, "decoder.conv1", 1024, CHANNELS, 5, 3, 3);
    emit_middle(k, "decoder", 1024);
    for (int i = 0; i < 4; i++)
        emit_level(k, "decoder.upsamples", i, 3, up[i], up[i + 1], i < 3,
                   i < 2 ? 2 * up[i + 1] : 0);
    emit_gamma(k, "decoder.head.0.gamma", 256, 4);
    emit_conv(k, "decoder.head.2", 12, 256, 5, 3, 3);
}

/* -----------------------------------------------------------------------------------------------------------
 * door */

#define TITLE "synthetic weights, for speed and memory only"

static void write_metadata(gguf_writer *w, part p) {
    static const char *const architecture[PARTS] = {"wan", "t5encoder", "wan-vae"};
    wan_gguf_write_string(w, "general.architecture", architecture[p]);
    wan_gguf_write_string(w, "general.name", TITLE);
    wan_gguf_write_u32(w, "general.quantization_version", 2);
}

typedef void (*lister)(walk *k);

static void write_gguf(walk *k, const char *path, part p, lister each) {
    k->w = wan_gguf_write_open(path, &k->err);
    if (!k->w)
        return;
    write_metadata(k->w, p);
    each(k);
    k->fill = true;
    each(k);
    if (k->err.code)
        wan_gguf_write_abort(k->w);
    else
        wan_gguf_write_commit(k->w, &k->err);
}

static void write_safetensors(walk *k, const char *path, lister each) {
    static const char *const meta[] = {"general.name", TITLE, NULL};
    each(k);
    if (!k->err.code)
        k->file = wan_safetensors_begin(path, k->list, k->count, meta, &k->err);
    k->fill = true;
    if (k->file)
        each(k);
    if (k->file && k->err.code)
        wan_outfile_abort(k->file);
    else if (k->file)
        wan_outfile_commit(k->file, &k->err);
    for (size_t i = 0; i < k->count; i++)
        free((char *)k->list[i].name);
    free(k->list);
}

wan_status wan_synthetic_write(const char *path, part p, const synthetic *s, error *err) {
    static const lister each[PARTS] = {
        [PART_DIT] = emit_dit, [PART_TEXT] = emit_text, [PART_VAE] = emit_vae};
    if (!form_of(s->type) && !has_scales(s->type) && s->type != WAN_F32 && s->type != WAN_F16 &&
        s->type != WAN_BF16)
        return wan_fail(err, WAN_E_TYPE, "synthetic weights of type %s are not made",
                        wan_dtype(s->type)->name);
    walk k = {
        .s = s, .state = (s->seed + 1) * UINT64_C(0x9e3779b97f4a7c15), .chunk = malloc(CHUNK)};
    if (!k.chunk)
        return wan_fail(err, WAN_E_MEMORY, "out of memory for synthetic weights");
    if (has_scales(s->type))
        write_safetensors(&k, path, each[p]);
    else
        write_gguf(&k, path, p, each[p]);
    free(k.chunk);
    return k.err.code ? wan_fail(err, k.err.code, "%s", k.err.message) : WAN_OK;
}
