/* SPDX-License-Identifier: Apache-2.0 */
/* conv_sm90_shapes.cuh - the convolutions that conv_sm90_test.cu knows. */
typedef struct shape {
    const char *name;
    int64_t frames, height, width, in, out;
    int kt, kh, kw;
    int held;
    bool add;
    int time_stride, stride, split, phase; /* phase 0-3 of a doubled image, -1: none */
    bool no_past, no_bias, one_sign, norm;
} shape;

static shape cube(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out,
                  int kt, int k, int held, bool add) {
    return shape{name, t, h, w, in, out,   kt,    k,     k,    held,
                 add,  1, 1, 1, -1, false, false, false, false};
}

static shape phase(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out,
                   int which, bool add) {
    shape s = cube(name, t, h, w, in, out, 1, 2, 0, add);
    s.phase = which;
    return s;
}

static shape time_up(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out,
                     int held) {
    shape s = cube(name, t, h, w, in, out, 3, 1, held, false);
    s.split = 2;
    return s;
}

static shape down(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out) {
    shape s = cube(name, t, h, w, in, out, 1, 3, 0, false);
    s.stride = 2;
    return s;
}

static shape time_down(const char *name, int64_t t, int64_t h, int64_t w, int64_t in, int64_t out,
                       int held, bool add) {
    shape s = cube(name, t, h, w, in, out, 3, 1, held, add);
    s.time_stride = 2;
    return s;
}

static conv_args args_of(const shape &s, dtype type) {
    conv_args a = conv_args();
    a.frames_in = s.frames;
    a.height = s.height;
    a.width = s.width;
    a.in = s.in;
    a.out = s.out;
    a.kt = s.kt;
    a.kh = s.kh;
    a.kw = s.kw;
    a.before = s.kt == 1 ? 0 : s.time_stride == 2 ? 1 : 2;
    a.held = s.held;
    a.time_stride = s.time_stride;
    a.frames_out = (a.before + s.frames - s.kt) / s.time_stride + 1;
    a.stride = s.stride;
    a.top = s.stride == 2 ? 0 : s.kh / 2;
    a.left = s.stride == 2 ? 0 : s.kw / 2;
    a.step = 1;
    a.split = s.split;
    a.dst_h = s.height / s.stride;
    a.dst_w = s.width / s.stride;
    if (s.phase >= 0) {
        a.step = 2;
        a.off_y = s.phase / 2;
        a.off_x = s.phase % 2;
        a.top = 1 - a.off_y;
        a.left = 1 - a.off_x;
        a.dst_h *= 2;
        a.dst_w *= 2;
    }
    a.add = s.add;
    a.type = type;
    return a;
}

static double flops(const conv_args &a) {
    return 2.0 * a.in * a.out * a.kt * a.kh * a.kw * a.frames_out * (a.height / a.stride) *
           (a.width / a.stride);
}
