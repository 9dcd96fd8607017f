/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/params.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sample/solver.h"

#define AT(field) offsetof(request, field)
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

#define G_CLIP "The clip"
#define G_STAGE "The stage"
#define G_SAMPLING "Denoising"
#define G_MODEL "The model"
#define G_CONVERT "The new file"
#define G_BENCH "The bench"
#define G_QUALITY "The comparison"
#define G_RUN "This run"

enum {
    GEN = FOR_GENERATE,
    STG = FOR_STAGE,
    TST = FOR_SELFTEST,
    INS = FOR_INSPECT,
    BEN = FOR_BENCH,
    CON = FOR_CONVERT,
    QUA = FOR_QUALITY,
    DOC = FOR_DOCTOR
};

// clang-format off
static const param table[] = {
    { "prompt",       'p', PARAM_TEXT,    AT(clip.prompt),   0, 0,     "TEXT",    G_CLIP, GEN | STG, true,
      "what the clip shows; may be empty" },
    { "negative",     'n', PARAM_TEXT,    AT(clip.negative), 0, 0,     "TEXT",    G_CLIP, GEN, true,
      "what it should not show; \"\" for nothing (default: the model's own)" },
    { "image",        'i', PARAM_PATH,    AT(image),         0, 0,     "FILE",    G_CLIP, GEN, true,
      "first frame: a PNG, JPEG or WebP picture, stretched to the clip's size" },
    { "output",       'o', PARAM_PATH,    AT(output),        0, 0,     "FILE",    G_CLIP, GEN, false,
      "the clip, by its ending: .mp4, .webm, .gif, .png (numbered frames), .y4m, or .safetensors (frames and "
      "latents); - writes y4m to standard output (default: wan-SEED.mp4)" },
    { "size",         0,   PARAM_SIZE,    AT(clip.width),    1, 16384, "WxH",     G_CLIP, GEN | BEN, true,
      "width and height in pixels, on the model's grid (multiples of 32 for Wan2.2 TI2V)" },
    { "frames",       0,   PARAM_INT,     AT(clip.frames),   1, 99999, "N",       G_CLIP, GEN | BEN, true,
      "how many frames: 1, 5, 9, ... 4n + 1" },
    { "fps",          0,   PARAM_RATE,    AT(fps),           0.01, 1000, "N",     G_CLIP, GEN, true,
      "frames a second: 24, 23.976 or 24000/1001; does not change the frames" },
    { "crf",          0,   PARAM_INT,     AT(crf),           0, 63,    "N",       G_CLIP, GEN, true,
      "quality of .mp4 (1 to 51) and .webm (0 to 63), lower is better (default: 16 and 30)" },
    { "no-metadata",  0,   PARAM_FLAG,    AT(no_metadata),   0, 0,     NULL,      G_CLIP, GEN, true,
      "keep the settings out of the clip" },
    { "overwrite",    'y', PARAM_FLAG,    AT(overwrite),     0, 0,     NULL,      G_CLIP, GEN | STG | CON | QUA, false,
      "replace an output that exists" },

    { "in",           0,   PARAM_PATH,    AT(input),         0, 0,     "FILE",    G_STAGE, STG, false,
      "safetensors file with the tensors the stage reads" },
    { "out",          'o', PARAM_PATH,    AT(output),        0, 0,     "FILE",    G_STAGE, STG, false,
      "safetensors file for the tensors it writes" },
    { "shape",        0,   PARAM_SHAPE,   AT(shape),         1, 1 << 20, "C,F,h,w", G_STAGE, STG, false,
      "shape of the noise: latent channels, frames, height, width" },
    { "trace",        0,   PARAM_FLAG,    AT(trace),         0, 0,     NULL,      G_STAGE, STG, false,
      "write intermediate results too (dit, sample)" },

    { "steps",        0,   PARAM_INT,     AT(clip.steps),    1, 1000,  "N",       G_SAMPLING, GEN | STG | BEN, true,
      "denoising steps" },
    { "guidance",     0,   PARAM_REAL,    AT(clip.guidance), 0, 100,   "G",       G_SAMPLING, GEN | STG, true,
      "how closely to follow the prompt; 1 turns guidance off and halves the work" },
    { "shift",        0,   PARAM_REAL,    AT(clip.shift),    0.01, 100, "S",      G_SAMPLING, GEN | STG, true,
      "shift of the noise schedule" },
    { "sampler",      0,   PARAM_SAMPLER, AT(clip.sampler),  0, 0,     "NAME",    G_SAMPLING, GEN | STG, true,
      "unipc, unipc-official, euler, dpm++, turbo or turbo-published" },
    { "seed",         0,   PARAM_SEED,    AT(clip.seed),     0, 0,     "N",       G_SAMPLING, GEN | STG, true,
      "start of the noise, 0 to 18446744073709551615, as torch's CPU generator; -1 picks one and says which" },
    { "noise",        0,   PARAM_PATH,    AT(noise),         0, 0,     "FILE",    G_SAMPLING, GEN, true,
      "safetensors file whose tensor noise, f32 [C, F, h, w], replaces the seed's" },

    { "model",        'm', PARAM_PATH,    AT(model.model),   0, 0,     "PATH",    G_MODEL, GEN | STG | TST | BEN, true,
      "folder (diffusers, original or GGUF layout) or file (default: the demo model that comes with wan)" },
    { "dit",          0,   PARAM_PATH,    AT(model.dit),     0, 0,     "PATH",    G_MODEL, GEN | STG | TST | BEN | CON, true,
      "transformer from another place" },
    { "text-encoder", 0,   PARAM_PATH,    AT(model.text_encoder), 0, 0, "PATH",   G_MODEL, GEN | STG | TST | BEN | CON, true,
      "text encoder from another place" },
    { "vae",          0,   PARAM_PATH,    AT(model.vae),     0, 0,     "PATH",    G_MODEL, GEN | STG | TST | BEN | CON, true,
      "VAE from another place" },
    { "tokenizer",    0,   PARAM_PATH,    AT(model.tokenizer), 0, 0,   "PATH",    G_MODEL, GEN | STG | TST | BEN | CON, true,
      "tokenizer (spiece.model) from another place" },

    { "synthetic",    0,   PARAM_PATH,    AT(synthetic),     0, 0,     "KIND",    G_BENCH, BEN, false,
      "full-size random weights instead of a model: ti2v-5b; written to the cache folder once" },
    { "type",         0,   PARAM_PATH,    AT(weight_type),   0, 0,     "TYPE",    G_BENCH, BEN, false,
      "how synthetic weights are stored: q8_0, q4_k, fp8, int8, f16, bf16, f32, ... (default: q8_0)" },
    { "type",         0,   PARAM_PATH,    AT(weight_type),   0, 0,     "RECIPE",  G_CONVERT, CON, false,
      "what attention and feed-forward matrices become: keep, f32, f16 or bf16; in a .gguf also q8_0, q6_k, q5_k_m, q5_k_s, "
      "q4_k_m, q4_k, q3_k, q2_k, q5_0, q5_1, q4_0, q4_1, iq4_nl or iq4_xs; in safetensors also fp8 or int8 with a scale for "
      "each row (default: q8_0 for .gguf, keep otherwise); everything else stays as it is" },
    { "recipe",       0,   PARAM_PATH,    AT(recipe),        0, 0,     "RULES",   G_CONVERT, CON, false,
      "exceptions: PATTERN=TYPE with commas between them, or a file with one a line; * and ? in a pattern stand for "
      "anything, the last rule that fits counts: 'vae.*=bf16,blocks.0.*.weight=keep'" },
    { "licence",      0,   PARAM_TEXT,    AT(licence),       0, 0,     "NAME",    G_CONVERT, CON, false,
      "licence of the weights, for the file's metadata (default: what the source says)" },
    { "base-model",   0,   PARAM_TEXT,    AT(base_model),    0, 0,     "NAME",    G_CONVERT, CON, false,
      "name of the model it was made from, likewise" },
    { "layers",       0,   PARAM_INT,     AT(layers),        1, 1000,  "N",       G_BENCH, BEN, false,
      "only so many layers of the synthetic transformer and text encoder" },
    { "stage",        0,   PARAM_PATH,    AT(stage),         0, 0,     "NAME",    G_BENCH, BEN, false,
      "text, encode, dit, decode or all (default: all)" },
    { "repeat",       0,   PARAM_INT,     AT(repeat),        1, 1000,  "N",       G_BENCH, BEN, false,
      "after the first run so many more, with everything loaded; seconds are then their median" },
    { "max-seconds",  0,   PARAM_REAL,    AT(max_seconds),   1e-3, 1e9, "S",       G_BENCH, BEN, false,
      "no-go, and exit status 1, if the stages take longer together" },
    { "max-rss",      0,   PARAM_BYTES,   AT(max_rss),       1 << 20, 0, "SIZE",   G_BENCH, BEN, false,
      "no-go, and exit status 1, if more memory was resident at any time: 6G, 800M, or a number of MiB" },

    { "each",         0,   PARAM_PATH,    AT(each),          0, 0,     "WHAT",    G_QUALITY, QUA, false,
      "a line for each chunk (what one latent frame decodes to: the first frame, then four at a time), each frame, or none "
      "(default: chunk)" },
    { "sheet",        0,   PARAM_PATH,    AT(sheet),         0, 0,     "OUT.png", G_QUALITY, QUA, false,
      "contact sheet of up to six frames, the worst among them: a row of A, of B, and of their amplified difference" },
    { "amplify",      0,   PARAM_INT,     AT(amplify),       1, 255,   "N",       G_QUALITY, QUA, false,
      "how many times the difference on the sheet is amplified (default: 8)" },
    { "min-psnr",     0,   PARAM_REAL,    AT(min_psnr),      0, 200,   "DB",      G_QUALITY, QUA, false,
      "exit status 1 if the worst chunk's PSNR is lower" },
    { "min-ssim",     0,   PARAM_REAL,    AT(min_ssim),      0, 1,     "S",       G_QUALITY, QUA, false,
      "exit status 1 if the worst chunk's SSIM is lower" },
    { "max-mae",      0,   PARAM_REAL,    AT(max_mae),       0, 255,   "LEVELS",  G_QUALITY, QUA, false,
      "exit status 1 if the worst chunk's mean absolute error, of 255, is higher" },

    { "device",       0,   PARAM_PATH,    AT(model.device),  0, 0,     "NAME",    G_RUN, GEN | STG | TST | BEN | DOC, true,
      "where to compute: cpu, cuda, cuda:N or auto, a GPU if there is one (default: auto)" },
    { "precision",    0,   PARAM_PATH,    AT(model.precision), 0, 0,   "NAME",    G_RUN, GEN | STG | TST | BEN, true,
      "arithmetic of matrix products: f32, bf16, int8 on a CPU, fp8 on a GPU, or auto, the fastest here whose products are at most 1 % off on this model "
      "(default: f32 on a CPU, bf16 on a GPU)" },
    { "max-vram",     0,   PARAM_BYTES,   AT(model.max_vram), 0, 0,    "SIZE",    G_RUN, GEN | STG | TST | BEN, false,
      "GPU memory to use at most, 12G for instance: weights that do not fit pass through at every use; a job that cannot fit is "
      "refused (default: what is free)" },
    { "threads",      0,   PARAM_INT,     AT(model.threads), 1, 1024,  "N",       G_RUN, GEN | STG | TST | BEN | CON, false,
      "worker threads (default: one per core)" },
    { "references",   0,   PARAM_PATH,    AT(references),    0, 0,     "DIR",     G_RUN, TST, false,
      "stored results to compare with (default: selftest in the model's folder)" },
    { "dry-run",      0,   PARAM_FLAG,    AT(dry_run),       0, 0,     NULL,      G_RUN, GEN, false,
      "print the settings and the memory plan, compute nothing" },
    { "json",         0,   PARAM_FLAG,    AT(json),          0, 0,     NULL,      G_RUN, FOR_ALL, false,
      "one JSON object per event on standard output" },
    { "quiet",        'q', PARAM_FLAG,    AT(quiet),         0, 0,     NULL,      G_RUN, GEN | STG | TST | BEN | CON | QUA, false,
      "say nothing but errors and warnings" },
    { "help",         'h', PARAM_FLAG,    AT(help),          0, 0,     NULL,      G_RUN, FOR_ALL, false,
      "print this and stop" },
};
// clang-format on

void wan_request_init(request *r) {
    *r = (request){.crf = -1};
    wan_params_init(&r->clip);
    r->clip.guidance = r->clip.shift = -1;
    r->min_psnr = r->min_ssim = r->max_mae = -1;
}

const param *wan_params_table(size_t *count) {
    *count = COUNT(table);
    return table;
}

const param *wan_param_find(const char *name, unsigned commands) {
    for (size_t i = 0; i < COUNT(table); i++)
        if (table[i].commands & commands && strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

/* Levenshtein distance, of names short enough to be options; anything longer is far. */
static int distance(const char *a, const char *b) {
    size_t na = strlen(a), nb = strlen(b);
    int row[32];
    if (na >= COUNT(row) || nb >= COUNT(row))
        return 99;
    for (size_t j = 0; j <= nb; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int change = diagonal + (tolower((unsigned char)a[i - 1]) != b[j - 1]);
            int drop = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < drop ? change : drop;
        }
    }
    return row[nb];
}

const param *wan_param_nearest(const char *name, unsigned commands) {
    const param *best = NULL;
    int least = (int)strlen(name) / 3 + 2;
    for (size_t i = 0; i < COUNT(table); i++) {
        int d = table[i].commands & commands ? distance(name, table[i].name) : 99;
        if (d < least) {
            least = d;
            best = &table[i];
        }
    }
    return best;
}

static wan_status refuse(const param *p, const char *text, const char *allowed, error *err) {
    return wan_fail(err, WAN_E_USAGE, "--%s is \"%.80s\"; it must be %s", p->name, text, allowed);
}

static wan_status out_of_range(const param *p, const char *text, error *err) {
    char allowed[80];
    snprintf(allowed, sizeof allowed, "%.15g to %.15g", p->min, p->max);
    return refuse(p, text, allowed, err);
}

/* A whole decimal number up to `end`, without the liberties of strtoll (spaces, plus, hexadecimal).
 */
static bool read_int(const char *text, char end, int64_t *value, const char **rest) {
    if (!isdigit((unsigned char)text[text[0] == '-']))
        return false;
    char *stop;
    errno = 0;
    long long v = strtoll(text, &stop, 10);
    if (errno || *stop != end)
        return false;
    *value = v;
    if (rest)
        *rest = stop + 1;
    return true;
}

/* Decimal with a point, whatever the locale: main() never calls setlocale. */
static bool read_real(const char *text, double *value) {
    size_t n = strspn(text, "0123456789.eE+-");
    if (n == 0 || text[n] != '\0' || text[0] == '+')
        return false;
    char *stop;
    *value = strtod(text, &stop);
    return *stop == '\0' && stop != text && isfinite(*value);
}

static bool within(const param *p, double v) {
    return v >= p->min && v <= p->max;
}

static wan_status set_int(int *field, const param *p, const char *text, error *err) {
    int64_t v;
    if (!read_int(text, '\0', &v, NULL) || !within(p, (double)v)) {
        char allowed[80];
        snprintf(allowed, sizeof allowed, "a whole number from %.15g to %.15g", p->min, p->max);
        return refuse(p, text, allowed, err);
    }
    *field = (int)v;
    return WAN_OK;
}

static wan_status set_real(double *field, const param *p, const char *text, error *err) {
    double v;
    if (!read_real(text, &v))
        return refuse(p, text, "a number such as 3 or 2.5", err);
    if (!within(p, v))
        return out_of_range(p, text, err);
    *field = v;
    return WAN_OK;
}

/* K, M, G and T count in powers of 1024, whatever follows them (12G, 12GB, 12GiB). */
static wan_status set_bytes(uint64_t *to, const param *p, const char *text, error *err) {
    static const char units[] = "KMGT";
    char *stop = NULL;
    errno = 0;
    double v = isdigit((unsigned char)text[0]) ? strtod(text, &stop) : -1;
    const char *unit = stop && *stop ? strchr(units, toupper((unsigned char)*stop)) : NULL;
    if (unit) {
        v *= pow(1024, (double)(unit - units + 1));
        stop++;
    } else if (stop && !*stop && p->min > 0) {
        v *= p->min;
    }
    if (!stop || errno ||
        (*stop && strcasecmp(stop, "B") && (!unit || strcasecmp(stop, "iB"))) || !(v >= 1) ||
        v > 0x1p60)
        return refuse(p, text, "a number of bytes, perhaps with K, M, G or T (12G)", err);
    *to = (uint64_t)v;
    return WAN_OK;
}

static wan_status set_seed(request *r, const param *p, const char *text, error *err) {
    if (strcmp(text, "-1") == 0) {
        r->seed_given = false;
        return WAN_OK;
    }
    char *stop = NULL;
    errno = 0;
    unsigned long long v = isdigit((unsigned char)text[0]) ? strtoull(text, &stop, 10) : 0;
    if (!stop || errno || *stop)
        return refuse(p, text,
                      "a whole number from 0 to 18446744073709551615, or -1 for a random one", err);
    r->clip.seed = v;
    r->seed_given = true;
    return WAN_OK;
}

static wan_status set_size(request *r, const param *p, const char *text, error *err) {
    int64_t w, h;
    const char *rest;
    if (!read_int(text, 'x', &w, &rest) || !read_int(rest, '\0', &h, NULL))
        return refuse(p, text, "WIDTHxHEIGHT, for instance 256x256", err);
    if (!within(p, (double)w) || !within(p, (double)h))
        return wan_fail(err, WAN_E_USAGE,
                        "--size is \"%.80s\"; width and height must be %.15g to %.15g", text,
                        p->min, p->max);
    r->clip.width = (int)w;
    r->clip.height = (int)h;
    return WAN_OK;
}

static wan_status set_rate(rate *field, const param *p, const char *text, error *err) {
    rate v = {0, 1};
    double d;
    const char *rest;
    if (read_int(text, '/', &v.num, &rest)) {
        if (!read_int(rest, '\0', &v.den, NULL) || v.den < 1 || v.den > 1000000 ||
            v.num > 1000000000)
            return refuse(p, text, "a number or a fraction such as 24000/1001", err);
    } else if (read_real(text, &d)) {
        if (!within(p, d))
            return out_of_range(p, text, err);
        v = wan_rate_of(d);
    } else {
        return refuse(p, text, "a number or a fraction such as 24000/1001", err);
    }
    if (!within(p, wan_rate_value(v)))
        return out_of_range(p, text, err);
    *field = v;
    return WAN_OK;
}

static wan_status set_shape(int64_t field[4], const param *p, const char *text, error *err) {
    int64_t v[4], product = 1;
    const char *at = text;
    for (int i = 0; i < 4; i++)
        if (!read_int(at, i < 3 ? ',' : '\0', &v[i], &at))
            return refuse(p, text, "four numbers C,F,h,w, for instance 16,9,16,16", err);
    for (int i = 0; i < 4; i++) {
        if (!within(p, (double)v[i]) || (product *= v[i]) > (int64_t)1 << 33)
            return wan_fail(err, WAN_E_USAGE,
                            "--shape is \"%.80s\"; each number must be %.15g to %.15g and all "
                            "together at most 2^33 values",
                            text, p->min, p->max);
    }
    memcpy(field, v, sizeof v);
    return WAN_OK;
}

static wan_status set_sampler(wan_sampler *field, const param *p, const char *text, error *err) {
    error unknown = {0};
    wan_sampler s = wan_sampler_find(text, &unknown);
    if (unknown.code != WAN_OK || s == WAN_SAMPLER_DEFAULT)
        return refuse(p, text, p->help, err);
    *field = s;
    return WAN_OK;
}

wan_status wan_param_set(request *r, const param *p, const char *text, error *err) {
    void *field = (char *)r + p->offset;
    switch (p->type) {
    case PARAM_FLAG:
        *(bool *)field = true;
        return WAN_OK;
    case PARAM_PATH:
        if (!*text)
            return wan_fail(err, WAN_E_USAGE, "--%s is empty", p->name);
        *(const char **)field = text;
        return WAN_OK;
    case PARAM_TEXT:
        *(const char **)field = text;
        return WAN_OK;
    case PARAM_INT:
        return set_int(field, p, text, err);
    case PARAM_REAL:
        return set_real(field, p, text, err);
    case PARAM_SEED:
        return set_seed(r, p, text, err);
    case PARAM_SIZE:
        return set_size(r, p, text, err);
    case PARAM_BYTES:
        return set_bytes(field, p, text, err);
    case PARAM_RATE:
        return set_rate(field, p, text, err);
    case PARAM_SAMPLER:
        return set_sampler(field, p, text, err);
    case PARAM_SHAPE:
        return set_shape(field, p, text, err);
    }
    return wan_fail(err, WAN_E_INTERNAL, "--%s has no type", p->name);
}

/* As few digits as read back to the same number. */
static const char *real_text(double v, char buffer[PARAM_TEXT_MAX]) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(buffer, PARAM_TEXT_MAX, "%.*g", digits, v);
        if (strtod(buffer, NULL) == v)
            break;
    }
    return buffer;
}

static const char *rate_text(rate v, char buffer[PARAM_TEXT_MAX]) {
    if (v.den == 1)
        snprintf(buffer, PARAM_TEXT_MAX, "%" PRId64, v.num);
    else
        snprintf(buffer, PARAM_TEXT_MAX, "%" PRId64 "/%" PRId64, v.num, v.den);
    return v.num ? buffer : NULL;
}

const char *wan_param_text(const request *r, const param *p, char buffer[PARAM_TEXT_MAX]) {
    const void *field = (const char *)r + p->offset;
    const int64_t *shape = field;
    switch (p->type) {
    case PARAM_FLAG:
        return *(const bool *)field ? "" : NULL;
    case PARAM_PATH:
    case PARAM_TEXT:
        return *(const char *const *)field;
    case PARAM_INT:
        snprintf(buffer, PARAM_TEXT_MAX, "%d", *(const int *)field);
        return within(p, *(const int *)field) ? buffer : NULL;
    case PARAM_REAL:
        return within(p, *(const double *)field) ? real_text(*(const double *)field, buffer) : NULL;
    case PARAM_SEED:
        snprintf(buffer, PARAM_TEXT_MAX, "%" PRIu64, r->clip.seed);
        return r->seed_given ? buffer : NULL;
    case PARAM_SIZE:
        snprintf(buffer, PARAM_TEXT_MAX, "%dx%d", r->clip.width, r->clip.height);
        return r->clip.width > 0 && r->clip.height > 0 ? buffer : NULL;
    case PARAM_BYTES:
        snprintf(buffer, PARAM_TEXT_MAX, "%" PRIu64 "%s", *(const uint64_t *)field,
                 p->min > 0 ? "B" : "");
        return *(const uint64_t *)field ? buffer : NULL;
    case PARAM_RATE:
        return rate_text(*(const rate *)field, buffer);
    case PARAM_SAMPLER:
        return r->clip.sampler == WAN_SAMPLER_DEFAULT ? NULL : wan_sampler_name(r->clip.sampler);
    case PARAM_SHAPE:
        snprintf(buffer, PARAM_TEXT_MAX, "%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64, shape[0],
                 shape[1], shape[2], shape[3]);
        return shape[0] ? buffer : NULL;
    }
    return NULL;
}

static int64_t common_divisor(int64_t a, int64_t b) {
    return b ? common_divisor(b, a % b) : a;
}

rate wan_rate_of(double fps) {
    /* 23.976, 29.97 and 59.94 are how people write the television rates n * 1000 / 1001. */
    int64_t whole = llround(fps * 1.001);
    double television = (double)whole * 1000 / 1001;
    if (fps != floor(fps) && fabs(television - fps) < 0.0006 * fps / 24)
        return (rate){whole * 1000, 1001};
    int64_t num = llround(fps * 1000), divisor = common_divisor(num, 1000);
    return divisor ? (rate){num / divisor, 1000 / divisor} : (rate){0, 1};
}

double wan_rate_value(rate r) {
    return r.den ? (double)r.num / (double)r.den : 0;
}
