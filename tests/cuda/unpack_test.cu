/* SPDX-License-Identifier: Apache-2.0 */
/* Stored weights of every type, bit for bit against the processor's wan_dequantise, with and
 * without scales; rows of tables; packed convolutions. */
#include "check.cuh"

extern "C" {
#include "base/fp8.h"
#include "tensor/quants.h"
}

static compute c;

static const dtype types[] = {WAN_F32,  WAN_F16,   WAN_BF16,   WAN_F64,  WAN_F8_E4M3, WAN_F8_E5M2,
                              WAN_I8,   WAN_MLX_8, WAN_MLX_4,  WAN_Q8_0, WAN_Q4_0,    WAN_Q4_1,
                              WAN_Q5_0, WAN_Q5_1,  WAN_IQ4_NL, WAN_Q2_K, WAN_Q3_K,    WAN_Q4_K,
                              WAN_Q5_K, WAN_Q6_K,  WAN_IQ4_XS};

/* A tensor of random bytes on both sides; `shift` bytes off its alignment on the device. */
struct stored {
    std::vector<uint8_t> host;
    char *base;
    tensor t;
    stored(dtype type, std::vector<int64_t> dim, int shift = 0) {
        memset(&t, 0, sizeof t);
        t.type = type;
        t.rank = (int)dim.size();
        for (int i = 0; i < t.rank; i++)
            t.dim[i] = dim[i];
        host.resize(wan_bytes(t));
        for (auto &b : host)
            b = (uint8_t)random_bits();
        CUDA(cudaMalloc(&base, host.size() + 64));
        CUDA(cudaMemcpy(base + shift, host.data(), host.size(), cudaMemcpyHostToDevice));
        t.data = base + shift;
    }
    /* Ordinary numbers, of a type of 2 or 4 bytes. */
    void draw() {
        for (int64_t i = 0; i < wan_elements(t); i++) {
            float v = normal();
            uint16_t h = narrow(v, t.type);
            memcpy(host.data() + i * (t.type == WAN_F32 ? 4 : 2),
                   t.type == WAN_F32 ? (void *)&v : (void *)&h, t.type == WAN_F32 ? 4 : 2);
        }
        CUDA(cudaMemcpy(t.data, host.data(), host.size(), cudaMemcpyHostToDevice));
    }
    stored(const stored &) = delete;
    ~stored() { cudaFree(base); }
    std::vector<float> numbers() const {
        std::vector<float> v((size_t)wan_elements(t));
        wan_dequantise(t.type, v.data(), host.data(), wan_elements(t));
        return v;
    }
};

static bool same(float a, float b) {
    return !memcmp(&a, &b, sizeof a) || (a != a && b != b);
}

static void expect_bits(const std::string &what, const array &got, const std::vector<float> &want) {
    std::vector<float> g = got.fetch();
    int64_t wrong = 0, first = -1;
    for (int64_t i = (int64_t)want.size() - 1; i >= 0; i--)
        if (!same(g[i], as_type(want[i], got.type))) {
            wrong++;
            first = i;
        }
    bool guards = got.guards_hold();
    report(!wrong && guards, what.c_str(), (double)wrong / (double)want.size());
    if (wrong)
        printf("     [%lld] is %.9g, not %.9g\n", (long long)first, g[first], want[first]);
    if (!guards)
        printf("     wrote outside\n");
}

/* Scales of one kind: 0 none, 1 one for all, 2 one a row, 3 groups of f32, 4 groups of f16 and one
 * a row. */
struct scaled {
    linear l = {};
    array *row = NULL;
    stored *scale = NULL, *offset = NULL;
    scaled(const stored &w, int kind, int64_t group) {
        int64_t rows = w.t.dim[0], cols = w.t.dim[1];
        l.weight = w.t;
        if (kind == 1 || kind == 2 || kind == 4) {
            row = new array(WAN_F32, kind == 1 ? 1 : rows);
            row->fill();
            l.scale = row->as({row->n});
        }
        if (kind >= 3) {
            dtype t = kind == 3 ? WAN_F32 : WAN_F16;
            scale = new stored(t, {rows, cols / group});
            offset = new stored(t, {rows, cols / group});
            l.group_scale = scale->t;
            l.group_offset = offset->t;
        }
    }
    ~scaled() {
        delete row;
        delete scale;
        delete offset;
    }
    void apply(std::vector<float> &v, int64_t group) const {
        int64_t cols = l.weight.dim[1];
        std::vector<float> s, o;
        if (scale)
            s = scale->numbers(), o = offset->numbers();
        for (int64_t i = 0; i < (int64_t)v.size(); i++) {
            if (scale) {
                volatile float product = v[i] * s[i / group];
                v[i] = product + o[i / group];
            }
            if (row)
                v[i] *= row->v[row->n > 1 ? i / cols : 0];
        }
    }
};

static void unpack_case(dtype type, int64_t rows, int64_t cols, dtype to, int kind, int64_t group,
                        int shift) {
    stored w(type, {rows, cols}, shift);
    scaled s(w, kind, group);
    array y(to, rows * cols, shift % 3);
    std::vector<float> want = w.numbers();
    s.apply(want, group);
    wan_cuda_unpack(&c, y.at, to, &s.l);
    expect_bits(text("unpack %s %lldx%lld to %s, scales %d by %lld, shift %d",
                     wan_dtype(type)->name, (long long)rows, (long long)cols, name_of(to), kind,
                     (long long)group, shift),
                y, want);
}

static void rows_case(dtype type, int64_t rows, int64_t cols, int kind) {
    stored w(type, {rows, cols});
    scaled s(w, kind, cols);
    std::vector<int32_t> id;
    for (int i = 0; i < 9; i++)
        id.push_back((int32_t)(random_bits() % rows));
    id[3] = 0, id[4] = (int32_t)rows - 1;
    numbers ids(id);
    array y(WAN_F32, 9 * cols);
    std::vector<float> all = w.numbers(), want;
    s.apply(all, cols);
    for (int32_t i : id)
        want.insert(want.end(), all.begin() + i * cols, all.begin() + (i + 1) * cols);
    wan_cuda_rows(&c, y.as({9, cols}), &s.l, ids.as());
    expect_bits(text("rows %s %lldx%lld scales %d", wan_dtype(type)->name, (long long)rows,
                     (long long)cols, kind),
                y, want);
}

static void pack_case(dtype type, std::vector<int64_t> dim, dtype to, bool last) {
    stored w(type, dim);
    int64_t taps = 1, out = dim[0], in = dim[1];
    for (size_t i = 2; i < dim.size(); i++)
        taps *= dim[i];
    array y(to, out * in * taps);
    std::vector<float> v = w.numbers(), want(v.size());
    for (int64_t t = 0; t < taps; t++)
        for (int64_t o = 0; o < out; o++)
            for (int64_t i = 0; i < in; i++)
                want[(t * out + o) * in + i] =
                    v[last ? (o * taps + t) * in + i : (o * in + i) * taps + t];
    wan_cuda_ok(&c, wan_cuda_pack_conv(y.at, to, w.t.data, w.t, last, the_device.stream), "pack");
    expect_bits(text("pack %s %lldx%lldx%lld to %s%s", wan_dtype(type)->name, (long long)out,
                     (long long)in, (long long)taps, name_of(to), last ? " channels last" : ""),
                y, want);
}

/* Codes and scales are bytes in an array of f32, equal to what the host makes. */
static void pack_codes_case(dtype type, int64_t out, int64_t in, int64_t taps, bool last) {
    stored w(type, {out, in, taps});
    w.draw();
    int64_t each = in * taps, n = out * each;
    array y(WAN_F32, n / 4 + out);
    std::vector<float> v = w.numbers();
    wan_cuda_ok(&c, wan_cuda_pack_conv(y.at, WAN_F8_E4M3, w.t.data, w.t, last, the_device.stream),
                "pack");
    std::vector<float> got = y.fetch();
    const uint8_t *code = (const uint8_t *)got.data();
    int64_t wrong = 0;
    for (int64_t o = 0; o < out; o++) {
        float most = 1e-30f;
        for (int64_t i = 0; i < each; i++)
            most = fmaxf(most, fabsf(v[o * each + i]));
        wrong += got[n / 4 + o] != most / 448;
        for (int64_t i = 0; i < each; i++) {
            int64_t tap = i / in, at = last ? i : i % in * taps + tap;
            float want = v[o * each + at] * (448 / most);
            wrong += code[(tap * out + o) * in + i % in] != wan_f8_e4m3_from_float(want);
        }
    }
    report(!wrong && y.guards_hold(),
           text("pack codes of %s %lldx%lldx%lld%s", wan_dtype(type)->name, (long long)out,
                (long long)in, (long long)taps, last ? " channels last" : "")
               .c_str(),
           (double)wrong);
}

static void checks() {
    for (dtype type : {WAN_F32, WAN_F16, WAN_BF16})
        for (bool last : {false, true}) {
            pack_codes_case(type, 24, 16, 27, last);
            pack_codes_case(type, 8, 1024, 27, last);
            pack_codes_case(type, 1, 64, 1, last);
        }
    for (dtype type : types) {
        int block = wan_dtype(type)->block;
        for (dtype to : {WAN_F32, WAN_BF16}) {
            unpack_case(type, 37, 512, to, 0, 1, 0);
            unpack_case(type, 3, block, to, 0, 1, 0);
            unpack_case(type, 1, 4096 + block * 3, to, 2, 1, 0);
            unpack_case(type, 33, 768, to, 1, 1, 0);
            unpack_case(type, 33, 768, to, 2, 1, 2);
            unpack_case(type, 40, 256 * 3, to, 3, 64, 0);
            unpack_case(type, 40, 256 * 3, to, 4, 12, 0);
            if (block <= 2) {
                unpack_case(type, 71, 62, to, 2, 1, 0);
                unpack_case(type, 301, 30, to, 4, 5, 0);
                unpack_case(type, 5000, 2, to, 4, 1, 0);
                unpack_case(type, 3, 6, to, 3, 3, block == 1 ? 1 : 2);
            }
        }
        rows_case(type, 20, 4096, 0);
        rows_case(type, 20, 256, 2);
        rows_case(type, 20, 768, 4);
        if (block <= 2)
            rows_case(type, 11, 18, 4);
    }
    for (dtype type : {WAN_F32, WAN_F16, WAN_BF16, WAN_F8_E4M3, WAN_F64})
        for (dtype to : {WAN_F32, WAN_BF16, WAN_F16})
            for (bool last : {false, true}) {
                pack_case(type, {7, 12, 3, 3, 3}, to, last);
                pack_case(type, {65, 40, 3, 1, 1}, to, last);
                pack_case(type, {5, 9, 3, 3}, to, last);
                pack_case(type, {12, 256, 1, 1}, to, last);
            }
}

static void bench() {
    const int64_t rows = 14336, cols = 6144;
    size_t most = (size_t)rows * cols * 8;
    char *src = random_memory(most, false), *dst = random_memory(most / 4, true);
    for (dtype type : types) {
        linear l = {};
        l.weight.type = type;
        l.weight.rank = 2;
        l.weight.dim[0] = rows;
        l.weight.dim[1] = cols;
        l.weight.data = src;
        double ms = time_of([&](int) { wan_cuda_unpack(&c, dst, WAN_BF16, &l); });
        printf("BENCH unpack %-8s to bf16 %lldx%lld %8.4f ms %7.0f GB/s\n", wan_dtype(type)->name,
               (long long)rows, (long long)cols, ms,
               ((double)wan_bytes(l.weight) + 2.0 * rows * cols) / ms * 1e-6);
    }
    CUDA(cudaFree(src));
    CUDA(cudaFree(dst));
}

int main(int n, char **arg) {
    c = open_compute(WAN_PRECISION_BF16);
    checks();
    if (n > 1 && !strcmp(arg[1], "--bench") && !failures)
        bench();
    return finish();
}
