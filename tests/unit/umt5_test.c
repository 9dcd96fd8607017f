/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include <math.h>

#include "io/safetensors.h"
#include "model/umt5.h"
#include "model/umt5_config.h"

/* A small encoder with random weights, and the paper's formulas over them in double, written as
 * plainly as possible. */
enum {
    VOCAB = 30,
    DIM = 12,
    HEADS = 3,
    WIDTH = 5,
    INNER = HEADS * WIDTH,
    FFN = 20,
    LAYERS = 2,
    BUCKETS = 8
};
enum { DISTANCE = 20 };
#define EPS 1e-5
#define COUNT(a) (sizeof(a) / sizeof *(a))

typedef struct layer {
    float norm1[DIM], q[INNER * DIM], k[INNER * DIM], v[INNER * DIM], o[DIM * INNER],
        bias[BUCKETS * HEADS];
    float norm2[DIM], gate[FFN * DIM], up[FFN * DIM], down[DIM * FFN];
} layer;

typedef struct model {
    float embedding[VOCAB * DIM], norm[DIM];
    layer layers[LAYERS];
} model;

static uint64_t seed = 7;

static void fill(float *p, size_t n, float mean, float scale) {
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = mean + scale * ((float)(seed >> 40) / (float)(1 << 24) - 0.5f);
    }
}

#define FILL(a, mean, scale) fill(a, COUNT(a), mean, scale)

static model *random_model(void) {
    static model m;
    seed = 7;
    FILL(m.embedding, 0, 2);
    FILL(m.norm, 1, 0.5f);
    for (int i = 0; i < LAYERS; i++) {
        layer *l = &m.layers[i];
        FILL(l->norm1, 1, 0.5f);
        FILL(l->q, 0, 1);
        FILL(l->k, 0, 1);
        FILL(l->v, 0, 1);
        FILL(l->o, 0, 1);
        FILL(l->bias, 0, 3);
        FILL(l->norm2, 1, 0.5f);
        FILL(l->gate, 0, 1.5f);
        FILL(l->up, 0, 1);
        FILL(l->down, 0, 1);
    }
    return &m;
}

typedef struct file {
    named_tensor t[2 + 10 * LAYERS];
    char name[2 + 10 * LAYERS][64];
    size_t n;
} file;

static void add(file *f, const char *name, int64_t rows, int64_t columns, float *data) {
    snprintf(f->name[f->n], sizeof f->name[0], "%s.weight", name);
    int64_t dim[2] = {rows, columns};
    f->t[f->n] = (named_tensor){f->name[f->n], wan_tensor(WAN_F32, columns ? 2 : 1, dim, data)};
    f->n++;
}

static void list_tensors(file *f, model *m) {
    f->n = 0;
    add(f, "token_embedding", VOCAB, DIM, m->embedding);
    add(f, "norm", DIM, 0, m->norm);
    for (int i = 0; i < LAYERS; i++) {
        layer *l = &m->layers[i];
        const struct {
            const char *name;
            int64_t rows, columns;
            float *data;
        } row[] = {
            {"norm1", DIM, 0, l->norm1},  {"attn.q", INNER, DIM, l->q},
            {"attn.k", INNER, DIM, l->k}, {"attn.v", INNER, DIM, l->v},
            {"attn.o", DIM, INNER, l->o}, {"pos_embedding.embedding", BUCKETS, HEADS, l->bias},
            {"norm2", DIM, 0, l->norm2},  {"ffn.gate.0", FFN, DIM, l->gate},
            {"ffn.fc1", FFN, DIM, l->up}, {"ffn.fc2", DIM, FFN, l->down},
        };
        for (size_t k = 0; k < COUNT(row); k++) {
            char name[48];
            snprintf(name, sizeof name, "blocks.%d.%s", i, row[k].name);
            add(f, name, row[k].rows, row[k].columns, row[k].data);
        }
    }
}

static const char config[] =
    "{\"d_model\": 12, \"num_layers\": 2, \"num_heads\": 3, \"d_kv\": 5, \"d_ff\": 20,"
    "\"vocab_size\": 30, \"relative_attention_num_buckets\": 8,"
    "\"relative_attention_max_distance\": 20, \"layer_norm_epsilon\": 1e-5,"
    "\"feed_forward_proj\": \"gated-gelu\"}";

static store *write_and_open(const char *folder, const file *f, const char *json) {
    char path[300];
    error err = {0};
    make_file(folder, "config.json", json, strlen(json));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(wan_safetensors_write(path, f->t, f->n, NULL, &err), WAN_OK);
    store *s = wan_store_open(folder, PART_TEXT, &err);
    if (!s)
        fail_msg("%s", err.message);
    return s;
}

/* -------------------------------------------------------------------------------------------------
 * the reference */

static void rms_norm(double *y, const double *x, const float *gain) {
    double sum = 0;
    for (int i = 0; i < DIM; i++)
        sum += x[i] * x[i];
    for (int i = 0; i < DIM; i++)
        y[i] = x[i] / sqrt(sum / DIM + EPS) * gain[i];
}

static void product(double *y, const float *w, int rows, int columns, const double *x) {
    for (int r = 0; r < rows; r++) {
        y[r] = 0;
        for (int i = 0; i < columns; i++)
            y[r] += w[r * columns + i] * x[i];
    }
}

static double gelu(double t) {
    return t / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (t + 0.044715 * t * t * t)));
}

/* 8 buckets, distances up to 20: keys before the query have 0 to 3, behind it 4 to 7; 0 and 1
 * exact, 2 from 2, 3 from 2 * sqrt(10) = 6.3. */
static int bucket(int relative) {
    int n = abs(relative);
    return (relative > 0 ? 4 : 0) + (n < 2 ? n : n < 7 ? 2 : 3);
}

static void attend(double (*out)[INNER], double (*q)[INNER], double (*k)[INNER], double (*v)[INNER],
                   const float *bias, int n) {
    for (int h = 0; h < HEADS; h++) {
        for (int i = 0; i < n; i++) {
            double sum = 0, w;
            for (int d = 0; d < WIDTH; d++)
                out[i][h * WIDTH + d] = 0;
            for (int j = 0; j < n; j++) {
                double dot = bias[bucket(j - i) * HEADS + h];
                for (int d = 0; d < WIDTH; d++)
                    dot += q[i][h * WIDTH + d] * k[j][h * WIDTH + d];
                sum += w = exp(dot);
                for (int d = 0; d < WIDTH; d++)
                    out[i][h * WIDTH + d] += w * v[j][h * WIDTH + d];
            }
            for (int d = 0; d < WIDTH; d++)
                out[i][h * WIDTH + d] /= sum;
        }
    }
}

enum { TOKENS = 40 };

static void layer_reference(double (*x)[DIM], const layer *l, int n) {
    static double q[TOKENS][INNER], k[TOKENS][INNER], v[TOKENS][INNER], a[TOKENS][INNER];
    double h[DIM], y[DIM], gate[FFN], up[FFN];
    for (int i = 0; i < n; i++) {
        rms_norm(h, x[i], l->norm1);
        product(q[i], l->q, INNER, DIM, h);
        product(k[i], l->k, INNER, DIM, h);
        product(v[i], l->v, INNER, DIM, h);
    }
    attend(a, q, k, v, l->bias, n);
    for (int i = 0; i < n; i++) {
        product(y, l->o, DIM, INNER, a[i]);
        for (int d = 0; d < DIM; d++)
            x[i][d] += y[d];
        rms_norm(h, x[i], l->norm2);
        product(gate, l->gate, FFN, DIM, h);
        product(up, l->up, FFN, DIM, h);
        for (int d = 0; d < FFN; d++)
            gate[d] = gelu(gate[d]) * up[d];
        product(y, l->down, DIM, FFN, gate);
        for (int d = 0; d < DIM; d++)
            x[i][d] += y[d];
    }
}

static void reference(double (*x)[DIM], const model *m, const int32_t *ids, int n) {
    for (int i = 0; i < n; i++)
        for (int d = 0; d < DIM; d++)
            x[i][d] = m->embedding[ids[i] * DIM + d];
    for (int i = 0; i < LAYERS; i++)
        layer_reference(x, &m->layers[i], n);
    for (int i = 0; i < n; i++) {
        double y[DIM];
        rms_norm(y, x[i], m->norm);
        memcpy(x[i], y, sizeof y);
    }
}

/* -----------------------------------------------------------------------------------------------------
 * the tests */

/* Scratch for n tokens, as the dry backend counts it. */
static size_t plan(const store *s, int n) {
    error err = {0};
    compute dry = wan_compute_dry();
    umt5 *m = wan_umt5_open(s, &dry, &err);
    assert_non_null(m);
    tensor states = wan_umt5_forward(m, &dry, NULL, n);
    assert_int_equal(states.dim[0], n);
    assert_int_equal(states.dim[1], DIM);
    assert_int_equal(dry.err.code, WAN_OK);
    wan_umt5_close(m);
    return dry.scratch.peak;
}

static void test_forward(void **state) {
    (void)state;
    static file f;
    static double want[TOKENS][DIM];
    static float got[TOKENS * DIM];
    char folder[256];
    model *weights = random_model();
    list_tensors(&f, weights);
    store *s = write_and_open(make_folder(folder), &f, config);
    error err = {0};
    compute c;
    assert_int_equal(wan_compute_open(&c, wan_backend_find("cpu", NULL, &err), 2, plan(s, TOKENS), &err),
                     WAN_OK);
    umt5 *m = wan_umt5_open(s, &c, &err);
    assert_non_null(m);
    assert_int_equal(wan_umt5_dim(m), DIM);
    assert_int_equal(wan_umt5_vocab(m), VOCAB);
    static const int counts[] = {1, 2, 17, TOKENS};
    for (size_t i = 0; i < COUNT(counts); i++) {
        int32_t ids[TOKENS];
        int n = counts[i];
        for (int k = 0; k < n; k++)
            ids[k] = (k * 11 + 3) % VOCAB;
        reference(want, weights, ids, n);
        size_t mark = wan_mark(&c);
        tensor states = wan_umt5_forward(m, &c, ids, n);
        wan_download(&c, got, states);
        wan_release(&c, mark);
        assert_string_equal(c.err.message, "");
        double miss = 0, size = 0;
        for (int k = 0; k < n * DIM; k++) {
            double w = want[k / DIM][k % DIM];
            miss += (got[k] - w) * (got[k] - w);
            size += w * w;
        }
        if (!(sqrt(miss / size) < 5e-6))
            fail_msg("%d tokens: relative error %g", n, sqrt(miss / size));
    }
    assert_true(c.scratch.peak <= plan(s, TOKENS));
    int32_t strange[2] = {1, VOCAB};
    wan_umt5_forward(m, &c, strange, 2);
    expect_error(&c.err, WAN_E_PARTS, "token 1 is 30, but the text encoder embeds 30");
    wan_umt5_close(m);
    wan_compute_close(&c);
    wan_store_close(s);
    remove_folder(folder);
}

static void expect_refused(const file *f, const char *json, wan_status code, const char *why) {
    char folder[256];
    error err = {0};
    store *s = write_and_open(make_folder(folder), f, json);
    compute dry = wan_compute_dry();
    assert_null(wan_umt5_open(s, &dry, &err));
    expect_error(&err, code, why);
    wan_store_close(s);
    remove_folder(folder);
}

/* Leaves tensor `name` out. */
static void drop(file *f, const char *name) {
    size_t kept = 0;
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->t[i].name, name) != 0)
            f->t[kept++] = f->t[i];
    assert_int_equal(kept, f->n - 1);
    f->n = kept;
}

static void test_refused(void **state) {
    (void)state;
    static file f;
    list_tensors(&f, random_model());
    expect_refused(&f, "{\"d_model\": 13}", WAN_E_SHAPE, "says d_model is 13, the tensors say 12");
    expect_refused(&f, "{\"d_model\": 12, \"num_heads\": 4}", WAN_E_SHAPE,
                   "says num_heads is 4, the tensors say 3");
    expect_refused(&f, "{\"d_model\": 12, \"relative_attention_max_distance\": 2}", WAN_E_SHAPE,
                   "8 position buckets up to distance 2;");
    expect_refused(&f, "{\"d_model\": 12, \"layer_norm_epsilon\": 0}", WAN_E_SHAPE,
                   "layer_norm_epsilon is 0");
    expect_refused(&f, "{\"d_model\": 12, \"feed_forward_proj\": \"relu\"}", WAN_E_PARTS,
                   "feed_forward_proj is relu");
    drop(&f, "blocks.1.ffn.fc2.weight");
    expect_refused(&f, config, WAN_E_SHAPE, "blocks.1.ffn.fc2.weight");
    list_tensors(&f, random_model());
    drop(&f, "blocks.1.pos_embedding.embedding.weight");
    expect_refused(&f, config, WAN_E_PARTS, "T5 v1.1");
    list_tensors(&f, random_model());
    for (size_t i = 0; i < f.n; i++)
        if (!strcmp(f.t[i].name, "blocks.1.attn.k.weight"))
            f.t[i].t.dim[0]--;
    expect_refused(&f, config, WAN_E_SHAPE, "blocks.1.attn.k.weight");
}

/* text.md 1.3: where each bucket of the real model begins. */
static void test_buckets(void **state) {
    (void)state;
    static const int64_t from[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91};
    for (int64_t n = 0; n < 600; n++) {
        int64_t want = 15;
        while (n < from[want])
            want--;
        assert_int_equal(wan_umt5_bucket(-n, 32, 128), want);
        assert_int_equal(wan_umt5_bucket(n, 32, 128), n ? 16 + want : 0);
    }
    for (int n = -TOKENS; n <= TOKENS; n++)
        assert_int_equal(wan_umt5_bucket(n, BUCKETS, DISTANCE), bucket(n));
    assert_int_equal(wan_umt5_bucket(1, 4, 2), 3);
    assert_int_equal(wan_umt5_bucket(-1000000, 4, 2), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
