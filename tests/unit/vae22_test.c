/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include <math.h>

#include "backend/backend.h"
#include "io/safetensors.h"
#include "model/vae22.h"

/* An autoencoder of invented weights under the original names. */
typedef struct recipe {
    int base, decoder_base, z, blocks, mult[4];
    const char *skip;   /* a tensor to leave out */
    const char *squash; /* a convolution to give a 1 x 1 x 1 kernel */
    const char *const *meta;
} recipe;

static const recipe small = {4, 5, 3, 1, {1, 2, 4, 4}, NULL, NULL, NULL};

/* latents_mean and latents_std of three channels */
static const char *const statistics[] = {"latents_mean", "[0.5, -0.25, 0]", "latents_std",
                                         "[2, 0.5, 1.25]", NULL};

typedef struct writer {
    const recipe *r;
    named_tensor at[400];
    char name[400][96];
    size_t n;
    uint32_t seed;
} writer;

static float invent(writer *w) {
    w->seed = w->seed * 1664525u + 1013904223u;
    return (float)(int32_t)w->seed * 0x1p-31f;
}

static void add(writer *w, const char *name, int rank, const int64_t *dim, float centre,
                float spread) {
    if (w->r->skip && !strcmp(name, w->r->skip))
        return;
    tensor t = wan_tensor(WAN_F32, rank, dim, NULL);
    float *v = malloc(wan_bytes(t));
    assert_non_null(v);
    for (int64_t i = 0; i < wan_elements(t); i++)
        v[i] = centre + spread * invent(w);
    t.data = v;
    snprintf(w->name[w->n], sizeof w->name[0], "%s", name);
    w->at[w->n] = (named_tensor){w->name[w->n], t};
    w->n++;
}

static void add_conv(writer *w, const char *prefix, const char *name, int out, int in, int kt,
                     int k) {
    char full[96];
    snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    if (w->r->squash && !strcmp(full, w->r->squash))
        kt = k = 1;
    float spread = 2 / (float)(in * k);
    if (kt)
        add(w, full, 5, (int64_t[]){out, in, kt, k, k}, 0, spread);
    else
        add(w, full, 4, (int64_t[]){out, in, k, k}, 0, spread);
    snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    add(w, full, 1, (int64_t[]){out}, 0, 0.2f);
}

static void add_gamma(writer *w, const char *prefix, const char *name, int n) {
    char full[96];
    snprintf(full, sizeof full, "%s%s.gamma", prefix, name);
    add(w, full, 4, (int64_t[]){n, 1, 1, 1}, 1, 0.2f);
}

static void add_block(writer *w, const char *prefix, int in, int out) {
    add_gamma(w, prefix, "residual.0", in);
    add_conv(w, prefix, "residual.2", out, in, 3, 3);
    add_gamma(w, prefix, "residual.3", out);
    add_conv(w, prefix, "residual.6", out, out, 3, 3);
    if (in != out)
        add_conv(w, prefix, "shortcut", out, in, 1, 1);
}

static void add_levels(writer *w, const char *side, const char *list, int first, const int *out,
                       int blocks, bool up) {
    char prefix[64], name[64];
    for (int i = 0; i < 4; first = out[i++]) {
        for (int j = 0; j < blocks; j++) {
            snprintf(prefix, sizeof prefix, "%s.%s.%d.%s.%d.", side, list, i, list, j);
            add_block(w, prefix, j ? out[i] : first, out[i]);
        }
        snprintf(prefix, sizeof prefix, "%s.%s.%d.%s.%d.", side, list, i, list, blocks);
        snprintf(name, sizeof name, "resample.1");
        if (i < 3)
            add_conv(w, prefix, name, out[i], out[i], 0, 3);
        if (up ? i < 2 : i == 1 || i == 2)
            add_conv(w, prefix, "time_conv", up ? 2 * out[i] : out[i], out[i], 3, 1);
    }
}

static void add_side(writer *w, bool up) {
    const recipe *r = w->r;
    const char *side = up ? "decoder" : "encoder";
    int out[4], base = up ? r->decoder_base : r->base;
    for (int i = 0; i < 4; i++)
        out[i] = base * r->mult[up ? 3 - i : i];
    int first = up ? out[0] : base, mid = up ? first : out[3];
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s.", side);
    add_conv(w, prefix, "conv1", first, up ? r->z : 12, 3, 3);
    snprintf(prefix, sizeof prefix, "%s.middle.0.", side);
    add_block(w, prefix, mid, mid);
    snprintf(prefix, sizeof prefix, "%s.middle.1.", side);
    add_gamma(w, prefix, "norm", mid);
    add_conv(w, prefix, "to_qkv", 3 * mid, mid, 0, 1);
    add_conv(w, prefix, "proj", mid, mid, 0, 1);
    snprintf(prefix, sizeof prefix, "%s.middle.2.", side);
    add_block(w, prefix, mid, mid);
    add_levels(w, side, up ? "upsamples" : "downsamples", first, out, r->blocks + up, up);
    snprintf(prefix, sizeof prefix, "%s.head.", side);
    add_gamma(w, prefix, "0", out[3]);
    add_conv(w, prefix, "2", up ? 12 : 2 * r->z, out[3], 3, 3);
}

/* FOLDER/vae.safetensors, and a config.json beside it unless NULL. */
static const char *make_vae(const char *folder, const recipe *r, const char *config) {
    static writer w;
    static char path[512];
    error err = {0};
    w = (writer){.r = r, .seed = 7};
    add_conv(&w, "", "conv1", 2 * r->z, 2 * r->z, 1, 1);
    add_conv(&w, "", "conv2", r->z, r->z, 1, 1);
    add_side(&w, false);
    add_side(&w, true);
    snprintf(path, sizeof path, "%s/vae.safetensors", folder);
    assert_int_equal(wan_safetensors_write(path, w.at, w.n, r->meta ? r->meta : statistics, &err),
                     WAN_OK);
    for (size_t i = 0; i < w.n; i++)
        free(w.at[i].t.data);
    if (config)
        make_file(folder, "config.json", config, strlen(config));
    return path;
}

/* ----------------------------------------------------------------------------------- computing */

enum { FRAMES = 4, ROWS = 2, COLS = 3, PIXELS = 3 * (4 * FRAMES - 3) * 16 * ROWS * 16 * COLS };

static float number(int64_t i) {
    return (float)((i * 7919) % 1009) / 504.5f - 1;
}

static tensor numbers(compute *c, const int64_t dim[4]) {
    tensor x = wan_new(c, WAN_F32, 4, dim);
    for (int64_t i = 0; wan_ready(c) && i < wan_elements(x); i++)
        ((float *)x.data)[i] = number(i);
    return x;
}

/* Pixels of the first frames latent frames, decoded in groups that end with 0. */
static void decode(vae22 *m, compute *c, const int *groups, float *out) {
    error err = {0};
    int64_t frames = 0, from = 0, at = 0, size = 16 * ROWS * 16 * COLS;
    for (int i = 0; groups[i]; i++)
        frames += groups[i];
    int64_t all = 4 * frames - 3;
    tensor z = numbers(c, (int64_t[]){wan_vae22_channels(m), frames, ROWS, COLS});
    vae22_decoder *d = wan_vae22_decode_begin(m, c, frames, ROWS, COLS, &err);
    assert_non_null(d);
    for (int i = 0; groups[i]; from += groups[i++]) {
        size_t mark = wan_mark(c);
        tensor y = wan_vae22_decode(d, c, z, from, groups[i]);
        for (int64_t p = 0; wan_ready(c) && p < 3; p++)
            memcpy(out + (p * all + at) * size, (float *)y.data + p * y.dim[1] * size,
                   (size_t)(y.dim[1] * size) * sizeof *out);
        at += y.dim[1];
        wan_release(c, mark);
    }
    assert_int_equal(at, all);
    wan_vae22_decode_end(d);
}

static void open_at(compute *c, precision p, size_t scratch) {
    error err = {0};
    void *device = wan_backend_cpu.open(&(device_options){.threads = 2, .precision = p}, &err);
    assert_non_null(device);
    assert_int_equal(wan_compute_on(c, &wan_backend_cpu, device, p, scratch, &err), WAN_OK);
    c->owns_device = true;
}

/* The plan's scratch, which it returns, then the real thing in no more than that. */
static size_t decode_planned(const store *s, precision p, const int *groups, float *out) {
    error err = {0};
    compute dry = wan_compute_plan(&wan_backend_cpu, p), c;
    vae22 *m = wan_vae22_open(s, &dry, &err);
    assert_non_null(m);
    decode(m, &dry, groups, NULL);
    wan_vae22_close(m);
    open_at(&c, p, dry.scratch.peak);
    m = wan_vae22_open(s, &c, &err);
    assert_non_null(m);
    decode(m, &c, groups, out);
    assert_int_equal(c.err.code, WAN_OK);
    assert_int_equal(c.scratch.peak, dry.scratch.peak);
    assert_true(c.done.flops == dry.done.flops && c.done.bytes == dry.done.bytes);
    wan_vae22_close(m);
    wan_compute_close(&c);
    return dry.scratch.peak;
}

/* How far b is from a, of what a is. */
static double distance(const float *a, const float *b, int64_t n) {
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        all += (double)a[i] * a[i];
    }
    return sqrt(off / all);
}

/* Any groups give the same pixels, and so do any shapes of the model. */
static void groups_agree(void **state) {
    static const recipe recipes[] = {{4, 5, 3, 1, {1, 2, 4, 4}, NULL, NULL, NULL},
                                     {3, 4, 3, 2, {1, 1, 2, 2}, NULL, NULL, NULL},
                                     {2, 3, 3, 3, {2, 2, 4, 4}, NULL, NULL, NULL},
                                     {4, 3, 3, 1, {1, 2, 4, 2}, NULL, NULL, NULL}};
    static const int groups[][5] = {{4}, {1, 1, 1, 1}, {2, 2}, {3, 1}, {1, 3}, {2, 1, 1}};
    static float want[PIXELS], got[PIXELS], near[PIXELS];
    char folder[256];
    error err = {0};
    (void)state;
    for (size_t r = 0; r < sizeof recipes / sizeof *recipes; r++) {
        store *s = wan_store_open(make_vae(make_folder(folder), &recipes[r], NULL), PART_VAE, &err);
        assert_non_null(s);
        size_t wide = decode_planned(s, WAN_PRECISION_F32, groups[0], want);
        size_t narrow = decode_planned(s, WAN_PRECISION_BF16, groups[0], near);
        double off = distance(want, near, PIXELS);
        assert_true(narrow < wide && off > 1e-4 && off < 0.1); /* how close is for goldens */
        int64_t inside = 0;
        for (int i = 0; i < PIXELS; i++) {
            assert_true(want[i] >= -1 && want[i] <= 1);
            inside += want[i] > -1 && want[i] < 1;
        }
        assert_true(inside > PIXELS / 10); /* not clamped to nothing */
        for (size_t g = 1; g < (r ? 2 : sizeof groups / sizeof *groups); g++) {
            memset(got, 0, sizeof got);
            decode_planned(s, WAN_PRECISION_F32, groups[g], got);
            assert_memory_equal(got, want, sizeof want);
            decode_planned(s, WAN_PRECISION_BF16, groups[g], got);
            assert_memory_equal(got, near, sizeof near);
        }
        wan_store_close(s);
        remove_folder(folder);
    }
}

/* Too little scratch is an error, whichever tensor no longer fits. */
static void too_little_scratch(void **state) {
    char folder[256];
    error err = {0};
    (void)state;
    store *s = wan_store_open(make_vae(make_folder(folder), &small, NULL), PART_VAE, &err);
    assert_non_null(s);
    for (size_t room = 1000; room < 400000; room = room * 3 / 2) {
        compute c;
        assert_int_equal(wan_compute_open(&c, &wan_backend_cpu, 1, room, &err), WAN_OK);
        vae22 *m = wan_vae22_open(s, &c, &err);
        assert_non_null(m);
        vae22_decoder *d = wan_vae22_decode_begin(m, &c, 2, ROWS, COLS, &err);
        assert_non_null(d);
        tensor z = wan_new(&c, WAN_F32, WAN_DIMS(3, 2, ROWS, COLS));
        tensor y = wan_vae22_decode(d, &c, z, 0, 2);
        assert_int_equal(y.dim[1], 5);
        expect_error(&c.err, WAN_E_MEMORY, "does not fit");
        wan_vae22_decode_end(d);
        wan_vae22_close(m);
        wan_compute_close(&c);
    }
    wan_store_close(s);
    remove_folder(folder);
}

/* A clip's first latent frames do not depend on what follows: the first is that of a picture. */
static void causal(void **state) {
    static float whole[PIXELS], start[PIXELS];
    char folder[256];
    error err = {0};
    (void)state;
    store *s = wan_store_open(make_vae(make_folder(folder), &small, NULL), PART_VAE, &err);
    compute c;
    assert_non_null(s);
    assert_int_equal(
        wan_compute_open(&c, wan_backend_find("cpu", NULL, &err), 1, (size_t)64 << 20, &err),
        WAN_OK);
    vae22 *m = wan_vae22_open(s, &c, &err);
    assert_non_null(m);
    tensor pixels = wan_new(&c, WAN_F32, WAN_DIMS(3, 9, 32, 48));
    for (int64_t i = 0; i < wan_elements(pixels); i++)
        ((float *)pixels.data)[i] = number(i);
    tensor z = wan_vae22_encode(m, &c, pixels);
    assert_int_equal(z.dim[1], 3);
    memcpy(whole, z.data, wan_bytes(z));
    for (int64_t frames = 1; frames <= 5; frames += 4) {
        tensor first = wan_new(&c, WAN_F32, WAN_DIMS(3, frames, 32, 48));
        for (int64_t p = 0; p < 3; p++)
            memcpy((float *)first.data + p * frames * 32 * 48,
                   (float *)pixels.data + p * 9 * 32 * 48,
                   (size_t)(frames * 32 * 48) * sizeof(float));
        tensor y = wan_vae22_encode(m, &c, first);
        memcpy(start, y.data, wan_bytes(y));
        for (int64_t i = 0; i < wan_elements(y); i++) {
            int64_t size = y.dim[2] * y.dim[3], k = i / size % y.dim[1],
                    channel = i / size / y.dim[1];
            assert_true(start[i] == whole[(channel * 3 + k) * size + i % size]);
        }
    }
    wan_vae22_encode(m, &c, wan_new(&c, WAN_F32, WAN_DIMS(3, 4, 32, 48)));
    expect_error(&c.err, WAN_E_GRID, "[3, 4, 32, 48]");
    wan_vae22_close(m);
    wan_compute_close(&c);
    wan_store_close(s);
    remove_folder(folder);
}

/* -------------------------------------------------------------------------------------- errors */

static void refuse(const recipe *r, const char *config, wan_status code, const char *says) {
    char folder[256];
    error err = {0};
    compute dry = wan_compute_dry();
    store *s = wan_store_open(make_vae(make_folder(folder), r, config), PART_VAE, &err);
    assert_non_null(s);
    vae22 *m = wan_vae22_open(s, &dry, &err);
    assert_null(m);
    expect_error(&err, code, says);
    wan_store_close(s);
    remove_folder(folder);
}

static void odd_tensors(void **state) {
    recipe r = small;
    (void)state;
    r.skip = "decoder.upsamples.1.upsamples.1.residual.3.gamma";
    refuse(&r, NULL, WAN_E_SHAPE, r.skip);
    r.skip = "decoder.upsamples.2.upsamples.0.shortcut.weight";
    refuse(&r, NULL, WAN_E_SHAPE, r.skip);
    r.skip = "encoder.conv1.weight";
    refuse(&r, NULL, WAN_E_SHAPE, r.skip);
    r.skip = "encoder.downsamples.1.downsamples.1.time_conv.weight"; /* one side makes 4 frames, the
                                                                        other 2 */
    refuse(&r, NULL, WAN_E_SHAPE, "frames per latent");
    r.skip = NULL;
    r.squash = "decoder.head.2.weight";
    refuse(&r, NULL, WAN_E_SHAPE, "[12, 5, 1, 1, 1]");
    r.squash = "encoder.middle.2.residual.6.weight";
    refuse(&r, NULL, WAN_E_SHAPE, "3 x 3 x 3");
}

static void odd_statistics(void **state) {
    static const char *const none[] = {"format", "pt", NULL};
    static const char *const few[] = {"latents_mean", "[1, 2]", "latents_std", "[1, 2]", NULL};
    static const char *const half[] = {"latents_mean", "[1, 2, 3]", NULL};
    static const char *const zero[] = {"latents_mean", "[1, 2, 3]", "latents_std", "[1, 0, 1]",
                                       NULL};
    static const char *const text[] = {"latents_mean", "[1, 2, 3", "latents_std", "[1, 1, 1]",
                                       NULL};
    static const char *const words[] = {"latents_mean", "[1, \"2\", 3]", "latents_std", "[1, 1, 1]",
                                        NULL};
    static const struct {
        const char *const *meta;
        wan_status code;
        const char *says;
    } odd[] = {{none, WAN_E_PARTS, "latents_mean"},
               {few, WAN_E_FORMAT, "2 values"},
               {half, WAN_E_PARTS, "latents_std"},
               {zero, WAN_E_FORMAT, "latents_std[1]"},
               {text, WAN_E_FORMAT, "latents_mean is no JSON"},
               {words, WAN_E_FORMAT, "latents_mean[1]"}};
    recipe r = small;
    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        r.meta = odd[i].meta;
        refuse(&r, NULL, odd[i].code, odd[i].says);
    }
}

static void odd_config(void **state) {
    (void)state;
#define CONFIG(mult, rest)                                                                         \
    "{\"_class_name\": \"AutoencoderKLWan\", \"dim_mult\": " mult ", " rest "}"
    refuse(&small, CONFIG("[1, 2, 4, 4]", "\"base_dim\": 8"), WAN_E_SHAPE, "base_dim is 8");
    refuse(&small, CONFIG("[1, 2, 4, 4]", "\"z_dim\": 16"), WAN_E_SHAPE,
           "z_dim is 16, the tensors say 3");
    refuse(&small, CONFIG("[1, 2, 4]", "\"z_dim\": 3"), WAN_E_SHAPE, "3 entries in dim_mult");
    refuse(&small, CONFIG("[1, 2, 2, 4]", "\"z_dim\": 3"), WAN_E_SHAPE,
           "encoder level 2 8 channels");
    refuse(&small, CONFIG("[1, 2, 4, 4]", "\"decoder_base_dim\": 6"), WAN_E_SHAPE,
           "decoder level 3 6 channels");
    refuse(&small, CONFIG("[1, 2, 4, 4]", "\"num_res_blocks\": 2"), WAN_E_SHAPE,
           "num_res_blocks is 2");
    refuse(&small, CONFIG("[1, 2, 4, 4]", "\"temperal_downsample\": [true, true, false]"),
           WAN_E_SHAPE, "temperal_downsample[0] is true");
    refuse(&small, CONFIG("[1, 2, 4, 4]", "\"is_residual\": false"), WAN_E_PARTS, "Wan2.1");
    refuse(&small, CONFIG("\"1244\"", "\"z_dim\": 3"), WAN_E_SHAPE, "0 entries");
    refuse(&small, CONFIG("[1, 2, 4, 99999999999]", "\"z_dim\": 3"), WAN_E_FORMAT, "dim_mult[3]");
}

/* config.json comes before metadata. */
static void told_by_config(void **state) {
    static const char *const none[] = {"format", "pt", NULL};
    char folder[256];
    error err = {0};
    compute dry = wan_compute_dry();
    recipe r = small;
    (void)state;
    r.meta = none;
    store *s = wan_store_open(
        make_vae(make_folder(folder), &r,
                 "{\"vae\": {\"latents_mean\": [1, 2, 3], \"latents_std\": [1, 2, 3]}}"),
        PART_VAE, &err);
    assert_non_null(s);
    vae22 *m = wan_vae22_open(s, &dry, &err);
    assert_non_null(m);
    assert_int_equal(wan_vae22_channels(m), 3);
    assert_int_equal(wan_vae22_spatial(m), 16);
    assert_int_equal(wan_vae22_temporal(m), 4);
    assert_null(wan_vae22_decode_begin(m, &dry, 0, 1, 1, &err));
    expect_error(&err, WAN_E_GRID, "0 x 1 x 1");
    wan_vae22_close(m);
    wan_store_close(s);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_agree),   cmocka_unit_test(too_little_scratch),
        cmocka_unit_test(causal),         cmocka_unit_test(odd_tensors),
        cmocka_unit_test(odd_statistics), cmocka_unit_test(odd_config),
        cmocka_unit_test(told_by_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
