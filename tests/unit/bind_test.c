/* SPDX-License-Identifier: Apache-2.0 */
#include "weightfiles.h"

#include <math.h>

#include "weights/bind.h"

static char folder[256];
static size_t alive;      /* allocations of the backend below */
static bool far, failing; /* weights are copied; no memory is left */

static void *fake_alloc(void *device, size_t size, error *err) {
    (void)device;
    void *p = failing ? NULL : malloc(size);
    if (!p)
        wan_fail(err, WAN_E_MEMORY, "no memory");
    alive += p != NULL;
    return p;
}

static void fake_free(void *device, void *p, size_t size) {
    (void)device, (void)size;
    free(p);
    alive--;
}

static void fake_upload(void *device, void *dst, const void *src, size_t size) {
    (void)device;
    memcpy(dst, src, size);
}

static tensor fake_place(void *device, tensor host, weight_use use, error *err) {
    (void)use;
    if (!far)
        return host;
    void *p = fake_alloc(device, wan_bytes(host), err);
    if (p)
        memcpy(p, host.data, wan_bytes(host));
    host.data = p;
    return host;
}

static const backend fake = {.name = "fake",
                             .alloc = fake_alloc,
                             .free = fake_free,
                             .upload = fake_upload,
                             .place = fake_place};

static int setup(void **state) {
    (void)state;
    make_folder(folder);
    alive = 0;
    far = failing = false;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return alive != 0;
}

typedef struct block {
    linear q, plain, patch, spare, table;
    tensor gain, modulation, extra;
    conv kernel;
} block;

enum { NONE, D, K, V, ONE, SIX, SIZES };
static const int64_t sizes[SIZES] = {0, 4, 8, 5, 1, 6};

#define AT(field) offsetof(block, field)
static const binding rows[] = {
    {"q", AT(q), BIND_LINEAR, D, K, false},
    {"plain", AT(plain), BIND_EXACT_PLAIN, D, K, false},
    {"patch", AT(patch), BIND_LINEAR, D, K, false},
    {"norm", AT(gain), BIND_VECTOR, D, NONE, false},
    {"modulation", AT(modulation), BIND_BARE, SIX, D, false},
    {"table", AT(table), BIND_EXACT_PLAIN, V, K, false},
    {"kernel", AT(kernel), BIND_CONV, D, V, false},
    {"spare", AT(spare), BIND_LINEAR, D, K, true},
    {"extra", AT(extra), BIND_VECTOR, D, NONE, true},
};

/* Names are in a namespace of a transformer, so that the store takes them. */
#define P "blocks.0.self_attn."
static const spec good[] = {
    {P "q.weight", WAN_F32, 2, {4, 8}},
    {P "q.bias", WAN_F16, 1, {4}},
    {P "plain.weight", WAN_BF16, 2, {4, 8}},
    {P "patch.weight", WAN_F32, 5, {4, 2, 1, 2, 2}},
    {P "patch.bias", WAN_F64, 1, {4}},
    {P "norm.weight", WAN_BF16, 4, {4, 1, 1, 1}},
    {P "modulation", WAN_F32, 3, {1, 6, 4}},
    {P "table.weight", WAN_F16, 2, {5, 8}},
    {P "kernel.weight", WAN_BF16, 5, {4, 5, 3, 1, 1}},
    {P "kernel.bias", WAN_F32, 1, {4}},
    {P "left.over", WAN_F32, 1, {1}},
};

static wan_status bind_all(const spec *s, size_t n, bool gguf, block *b, error *err) {
    *err = (error){0};
    *b = (block){0};
    const char *path =
        gguf ? make_gguf(folder, "w.gguf", s, n) : make_weights(folder, "w.safetensors", s, n);
    store *st = wan_store_open(path, PART_DIT, err);
    if (!st)
        fail_msg("%s", err->message);
    compute c = {.be = &fake, .planned = &fake};
    binder *bi = wan_binder_open(st, &c, err);
    assert_non_null(bi);
    wan_status status = wan_bind(bi, P, rows, COUNT(rows), sizes, b, err);
    assert_int_equal(status, err->code);
    wan_binder_close(bi);
    wan_store_close(st);
    return status;
}

static void expect_values(tensor t, int rank, int64_t a, int64_t b) {
    assert_int_equal(t.type, WAN_F32);
    assert_int_equal(t.rank, rank);
    assert_int_equal(t.dim[0], a);
    if (rank > 1)
        assert_int_equal(t.dim[1], b);
    for (int64_t i = 0; i < wan_elements(t); i++)
        assert_true(((const float *)t.data)[i] == (float)(i + 1));
}

static void every_kind(void **state) {
    (void)state;
    for (int pass = 0; pass < 2; pass++) {
        far = pass == 1;
        error err = {0};
        store *s = wan_store_open(make_weights(folder, "w.safetensors", good, COUNT(good)),
                                  PART_DIT, &err);
        assert_non_null(s);
        compute c = {.be = &fake, .planned = &fake};
        binder *bi = wan_binder_open(s, &c, &err);
        block b = {0};
        if (wan_bind(bi, P, rows, COUNT(rows), sizes, &b, &err) != WAN_OK)
            fail_msg("%s", err.message);
        assert_int_equal(b.q.weight.data == wan_store_find(s, P "q.weight")->t.data, !far);
        expect_values(b.q.bias, 1, 4, 0);
        assert_int_equal(b.plain.weight.type, WAN_BF16);
        assert_null(b.plain.bias.data);
        assert_int_equal(b.patch.weight.rank, 2);
        assert_int_equal(b.patch.weight.dim[1], 8);
        expect_values(b.patch.bias, 1, 4, 0);
        expect_values(b.gain, 1, 4, 0);
        expect_values(b.modulation, 2, 6, 4);
        assert_int_equal(b.table.weight.type, WAN_F16);
        assert_int_equal(b.kernel.weight.rank, 5);
        assert_int_equal(b.kernel.weight.dim[2], 3);
        assert_null(b.spare.weight.data);
        assert_null(b.extra.data);
        size_t vectors = (4 + 4 + 4 + 24 + 4) * sizeof(float);
        size_t copies = 32 * 4 + 32 * 2 + 32 * 4 + 40 * 2 + 60 * 2;
        assert_int_equal(wan_binder_bytes(bi), vectors + (far ? copies : 0));
        char text[64];
        assert_int_equal(wan_binder_unused(bi, text, sizeof text), 1);
        assert_string_equal(text, P "left.over");
        assert_int_equal(wan_binder_unused(bi, text, 5), 1);
        assert_string_equal(text, "");
        assert_int_equal(wan_binder_unused(bi, NULL, 0), 1);
        wan_binder_close(bi);
        wan_store_close(s);
        assert_int_equal(alive, 0);
    }
    wan_binder_close(NULL);
}

/* A plan reads nothing: tensors have shapes and an address, the backend is never asked. */
static void dry(void **state) {
    (void)state;
    error err = {0};
    store *s =
        wan_store_open(make_weights(folder, "w.safetensors", good, COUNT(good)), PART_DIT, &err);
    assert_non_null(s);
    compute c = wan_compute_dry();
    binder *bi = wan_binder_open(s, &c, &err);
    block b = {0};
    assert_int_equal(wan_bind(bi, P, rows, COUNT(rows), sizes, &b, &err), WAN_OK);
    assert_int_equal(b.gain.type, WAN_F32);
    assert_int_equal(b.gain.rank, 1);
    assert_non_null(b.gain.data);
    assert_int_equal(wan_binder_bytes(bi), (4 + 4 + 4 + 24 + 4) * sizeof(float));
    float two[2] = {1, 2};
    tensor t;
    assert_int_equal(wan_bind_values(bi, two, WAN_DIMS(2), &t, &err), WAN_OK);
    assert_non_null(t.data);
    wan_binder_close(bi);
    wan_store_close(s);
}

static void values_of_ours(void **state) {
    (void)state;
    error err = {0};
    store *s =
        wan_store_open(make_weights(folder, "w.safetensors", good, COUNT(good)), PART_DIT, &err);
    compute c = {.be = &fake, .planned = &fake};
    binder *bi = wan_binder_open(s, &c, &err);
    float values[6] = {1, 2, 3, 4, 5, 6};
    tensor t;
    assert_int_equal(wan_bind_values(bi, values, WAN_DIMS(2, 3), &t, &err), WAN_OK);
    expect_values(t, 2, 2, 3);
    assert_ptr_not_equal(t.data, values);
    assert_int_equal(wan_binder_bytes(bi), sizeof values);
    failing = true;
    assert_int_equal(wan_bind_values(bi, values, WAN_DIMS(6), &t, &err), WAN_E_MEMORY);
    expect_error(&err, WAN_E_MEMORY, "no memory");
    wan_binder_close(bi);
    wan_store_close(s);
}

/* One tensor of the good file replaced (or left out: rank -1). */
static void with(const spec *s, bool gguf, wan_status code, const char *part_of_message) {
    spec changed[COUNT(good)];
    size_t n = 0;
    for (size_t i = 0; i < COUNT(good); i++) {
        const spec *use = strcmp(good[i].name, s->name) ? &good[i] : s;
        if (use->rank >= 0)
            changed[n++] = *use;
    }
    block b;
    error err;
    if (bind_all(changed, n, gguf, &b, &err) != code)
        fail_msg("%s: got %d \"%s\"", s->name, err.code, err.message);
    if (code != WAN_OK)
        expect_error(&err, code, part_of_message);
    assert_int_equal(alive, 0);
}

static void shapes_that_fit(void **state) {
    (void)state;
    static const spec fits[] = {
        {P "patch.weight", WAN_F16, 4, {8, 1, 2, 2}}, /* two slowest axes folded */
        {P "patch.weight", WAN_F16, 2, {4, 8}},
        {P "modulation", WAN_F16, 2, {6, 4}}, /* leading 1 dropped */
        {P "modulation", WAN_F32, 5, {1, 1, 6, 1, 4}},
        {P "norm.weight", WAN_F32, 1, {4}},
        {P "kernel.weight", WAN_F32, 4, {4, 5, 3, 3}},
        {P "kernel.weight", WAN_F32, 4, {20, 3, 1, 1}}, /* folded */
        {P "q.weight", WAN_F32, 4, {4, 8, 1, 1}},
    };
    for (size_t i = 0; i < COUNT(fits); i++)
        with(&fits[i], i % 2, WAN_OK, "");
}

static void shapes_that_do_not(void **state) {
    (void)state;
    static const struct {
        spec s;
        const char *part;
    } bad[] = {
        {{P "q.weight", WAN_F32, 2, {8, 4}}, P "q.weight is [8, 4], the model needs [4, 8]"},
        {{P "q.weight", WAN_F32, 1, {32}}, "is [32], the model needs [4, 8]"},
        {{P "q.bias", WAN_F32, 1, {5}}, P "q.bias is [5], the model needs [4]"},
        {{P "patch.weight", WAN_F32, 3, {2, 2, 8}}, "is [2, 2, 8]"},
        {{P "patch.weight", WAN_F32, 4, {4, 2, 2, 1}}, "is [4, 2, 2, 1]"},
        {{P "norm.weight", WAN_F32, 2, {2, 2}}, "is [2, 2], the model needs [4]"},
        {{P "modulation", WAN_F32, 2, {4, 6}}, "is [4, 6], the model needs [6, 4]"},
        {{P "modulation", WAN_F32, 1, {24}}, "is [24]"},
        {{P "table.weight", WAN_F32, 2, {6, 8}}, "is [6, 8], the model needs [5, 8]"},
        {{P "kernel.weight", WAN_F32, 5, {5, 4, 3, 1, 1}},
         "is [5, 4, 3, 1, 1], the model needs [4, 5] and a kernel"},
        {{P "kernel.weight", WAN_F32, 2, {4, 5}}, "and a kernel"},
        {{P "kernel.weight", WAN_F32, 4, {5, 4, 1, 1}}, "and a kernel"},
        {{P "kernel.bias", WAN_F32, 1, {5}}, "kernel.bias is [5]"},
        {{P "q.weight", WAN_F32, -1, {0}},
         "has no tensor " P "q.weight, the model needs it as [4, 8]"},
        {{P "q.bias", WAN_F32, -1, {0}}, "has no tensor " P "q.bias"},
        {{P "norm.weight", WAN_F32, -1, {0}}, "has no tensor " P "norm.weight"},
        {{P "modulation", WAN_F32, -1, {0}}, "has no tensor " P "modulation"},
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        with(&bad[i].s, i % 2, WAN_E_SHAPE, bad[i].part);
}

static void types(void **state) {
    (void)state;
    static const struct {
        spec s;
        const char *part;
    } bad[] = {
        {{P "q.weight", WAN_I16, 2, {4, 8}}, P "q.weight is stored as I16"},
        {{P "q.weight", WAN_U32, 2, {4, 8}}, "is stored as U32"},
        {{P "q.bias", WAN_I32, 1, {4}}, "is stored as I32"},
        {{P "norm.weight", WAN_U8, 1, {4}}, "is stored as U8"},
        {{P "kernel.weight", WAN_I64, 5, {4, 5, 3, 1, 1}}, "is stored as I64"},
        {{P "table.weight", WAN_I16, 2, {5, 8}}, "is stored as I16"},
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        with(&bad[i].s, false, WAN_E_TYPE, bad[i].part);
}

#define Q "blocks.0.attn1." /* as diffusers spells P */

/* Codes with scales: of rows they become floats, of groups they stay; kernels of MLX packages used
 * as matrices are put in order. */
static void scaled(void **state) {
    (void)state;
    static const int64_t wide[] = {0, 4, 64, 12};
    static const spec s[] = {{Q "f.weight", WAN_F8_E4M3, 2, {4, 64}},
                             {Q "f.weight_scale", WAN_BF16, 2, {4, 1}},
                             {Q "i.weight", WAN_I8, 2, {4, 64}},
                             {Q "i.scale_weight", WAN_F32, 0, {0}},
                             {Q "plain.weight", WAN_I8, 2, {4, 64}},
                             {Q "m.weight", WAN_U32, 2, {4, 16}},
                             {Q "m.scales", WAN_BF16, 2, {4, 1}},
                             {Q "m.biases", WAN_BF16, 2, {4, 1}},
                             {Q "k.weight", WAN_F32, 5, {4, 1, 2, 2, 3}},
                             {Q "c.weight", WAN_F32, 4, {4, 1, 1, 64}},
                             {Q "c.bias", WAN_F32, 1, {4}},
                             {Q "x.weight", WAN_F8_E4M3, 4, {4, 1, 1, 64}},
                             {Q "x.scale_weight", WAN_F32, 0, {0}},
                             {"blocks.0.ffn.net.1.weight", WAN_F32, 1, {1}},
                             {"blocks.0.attn1.to_q.weight", WAN_F32, 1, {1}}};
    for (int pass = 0; pass < 2; pass++) {
        far = pass == 1;
        error err = {0};
        store *st =
            wan_store_open(make_weights(folder, "w.safetensors", s, COUNT(s)), PART_DIT, &err);
        if (!st)
            fail_msg("%s", err.message);
        compute c = {.be = &fake, .planned = &fake};
        binder *bi = wan_binder_open(st, &c, &err);
        linear f = {0}, i = {0}, m = {0}, k = {0}, plain = {0};
        conv kernel = {0};
        binding row = {"f", 0, BIND_EXACT_PLAIN, 1, 2, false};
        assert_int_equal(wan_bind(bi, P, &row, 1, wide, &f, &err), WAN_OK);
        assert_int_equal(f.weight.type, WAN_F8_E4M3);
        expect_values(f.scale, 1, 4, 0);
        row.name = "i";
        assert_int_equal(wan_bind(bi, P, &row, 1, wide, &i, &err), WAN_OK);
        expect_values(i.scale, 1, 1, 0);
        row.name = "m";
        assert_int_equal(wan_bind(bi, P, &row, 1, wide, &m, &err), WAN_OK);
        assert_int_equal(m.weight.type, WAN_MLX_8);
        assert_int_equal(m.weight.dim[1], 64);
        assert_int_equal(m.group_scale.type, WAN_BF16);
        assert_int_equal(m.group_offset.dim[1], 1);
        assert_null(m.scale.data);
        size_t vectors = 5 * 4, copies = 256 + 256 + 256 + 8 + 8;
        assert_int_equal(wan_binder_bytes(bi), vectors + (far ? copies : 0));
        row = (binding){"k", 0, BIND_EXACT_PLAIN, 1, 3, false};
        assert_int_equal(wan_bind(bi, P, &row, 1, wide, &k, &err), WAN_OK);
        for (int e = 0; e < 48; e++)
            assert_true(((float *)k.weight.data)[e] ==
                        (float)(e / 12 * 12 + e % 12 % 4 * 3 + e % 12 / 4 + 1));
        assert_int_equal(wan_binder_bytes(bi), vectors + 48 * 4 + (far ? copies : 0));
        row = (binding){"c", 0, BIND_CONV, 1, 2, false};
        assert_int_equal(wan_bind(bi, P, &row, 1, wide, &kernel, &err), WAN_OK);
        assert_true(kernel.channels_last && kernel.weight.dim[1] == 64);
        row.name = "x";
        assert_int_equal(wan_bind(bi, P, &row, 1, wide, &kernel, &err), WAN_E_TYPE);
        expect_error(&err, WAN_E_TYPE, "a convolution, with a scale");
        err = (error){0};
        row = (binding){"plain", 0, BIND_EXACT_PLAIN, 1, 2, false};
        assert_int_equal(wan_bind(bi, P, &row, 1, wide, &plain, &err), WAN_E_TYPE);
        expect_error(&err, WAN_E_TYPE, "plain.weight is stored as I8");
        char text[256];
        assert_int_equal(wan_binder_unused(bi, text, sizeof text), 2); /* the last two */
        wan_binder_close(bi);
        wan_store_close(st);
        assert_int_equal(alive, 0);
    }
}

/* Q8_0: fine for everything but convolutions. */
static void blocks(void **state) {
    (void)state;
    static const int64_t wide[] = {0, 4, 32, 32};
    static const spec s[] = {{P "m.weight", WAN_Q8_0, 2, {4, 32}},
                             {P "v.weight", WAN_Q8_0, 1, {32}},
                             {P "c.weight", WAN_Q8_0, 4, {4, 32, 1, 32}},
                             {P "c.bias", WAN_F32, 1, {4}},
                             {P "k.weight", WAN_IQ2_XXS, 2, {4, 256}}};
    static const binding m = {"m", 0, BIND_EXACT_PLAIN, 1, 2, false},
                         v = {"v", 0, BIND_VECTOR, 3, 0, false},
                         k = {"c", 0, BIND_CONV, 1, 2, false},
                         q = {"k", 0, BIND_EXACT_PLAIN, 1, 2, false};
    error err = {0};
    store *st = wan_store_open(make_gguf(folder, "w.gguf", s, COUNT(s)), PART_DIT, &err);
    if (!st)
        fail_msg("%s", err.message);
    compute c = {.be = &fake, .planned = &fake};
    binder *bi = wan_binder_open(st, &c, &err);
    linear field = {0};
    conv kernel = {0};
    assert_int_equal(wan_bind(bi, P, &m, 1, wide, &field, &err), WAN_OK);
    assert_int_equal(field.weight.type, WAN_Q8_0);
    tensor vector = {0};
    assert_int_equal(wan_bind(bi, P, &v, 1, wide, &vector, &err), WAN_OK);
    assert_int_equal(vector.type, WAN_F32);
    float d = ldexpf(0x100, -24); /* bytes 0 and 1, a subnormal half */
    for (int i = 0; i < 32; i++)
        assert_true(((float *)vector.data)[i] == d * (float)(i + 2));
    assert_int_equal(wan_bind(bi, P, &k, 1, wide, &kernel, &err), WAN_E_TYPE);
    err = (error){0};
    assert_int_equal(wan_bind(bi, P, &q, 1, wide, &field, &err), WAN_E_TYPE);
    expect_error(&err, WAN_E_TYPE, P "k.weight is stored as IQ2_XXS");
    wan_binder_close(bi);
    wan_store_close(st);
}

static void no_memory(void **state) {
    (void)state;
    block b;
    error err;
    failing = true;
    assert_int_equal(bind_all(good, COUNT(good), false, &b, &err), WAN_E_MEMORY);
    far = true;
    assert_int_equal(bind_all(good, COUNT(good), false, &b, &err), WAN_E_MEMORY);
    expect_error(&err, WAN_E_MEMORY, P "q.weight: no memory");
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_kind),         TEST(dry),   TEST(values_of_ours), TEST(shapes_that_fit),
        TEST(shapes_that_do_not), TEST(types), TEST(blocks),         TEST(scaled),
        TEST(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
