/* SPDX-License-Identifier: Apache-2.0 */
/* Clips of every kind read back and compared: what is equal, what is near, what is refused. */
#include "media/compare.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/safetensors.h"
#include "media/clip.h"
#include "media/picture.h"
#include "workbench.h"

#define W 64
#define H 48
#define BYTES (W * H * 3)
#define MOST 12 /* frames */

static int clean(void **state) {
    (void)state;
    entries(true);
    return 0;
}

/* Smooth colours that move, so that codecs keep them; `off` levels away in every byte. */
static uint8_t value(int t, int x, int y, int c, int off) {
    double phase = 2.0 * c + 0.3 * t;
    return (uint8_t)(lrint(120 + 90 * sin(x / 17.0 + phase) * cos(y / 13.0 - phase)) + off);
}

static uint8_t *draw(int frames, int off) {
    uint8_t *rgb = malloc(MOST * BYTES), *p = rgb;
    assert_non_null(rgb);
    for (int t = 0; t < frames; t++)
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                for (int c = 0; c < 3; c++)
                    *p++ = value(t, x, y, c, off);
    return rgb;
}

static void save_clip(const char *name, int frames, const uint8_t *rgb) {
    error err = {0};
    clip_options o = {in_folder(name), W, H, frames, 16, 1, 4, 1, NULL};
    clip *c = wan_clip_open(&o, &err);
    if (!c || wan_clip_frames(c, rgb, frames, &err) != WAN_OK || wan_clip_close(c, &err) != WAN_OK)
        fail_msg("%s", err.message);
}

static void save_tensor(const char *name, const char *tensor_name, tensor t) {
    error err = {0};
    named_tensor n = {tensor_name, t};
    if (wan_safetensors_write(in_folder(name), &n, 1, NULL, &err) != WAN_OK)
        fail_msg("%s", err.message);
}

static void save_frames(const char *name, int frames, uint8_t *rgb) {
    save_tensor(name, "frames", wan_tensor(WAN_U8, WAN_DIMS(frames, H, W, 3), rgb));
}

static comparison must_compare(const char *a, const char *b) {
    error err = {0};
    comparison c;
    if (wan_compare(in_folder(a), in_folder(b), NULL, &c, &err) != WAN_OK)
        fail_msg("%s", err.message);
    return c;
}

static void must_refuse(wan_status status, const char *a, const char *b, const char *words) {
    error err = {0};
    comparison c;
    assert_int_equal(wan_compare(in_folder(a), in_folder(b), NULL, &c, &err), status);
    assert_int_equal(err.code, status);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_null(c.frame);
    assert_int_equal(wan_compare(in_folder(a), in_folder(b), NULL, &c, NULL), status);
}

static void same_frames_in_every_kind(void **state) {
    (void)state;
    uint8_t *rgb = draw(9, 0);
    static const struct {
        const char *name;
        bool lossless;
        double psnr; /* at least, for what is lossy */
    } row[] = {{"a.safetensors", true, 0}, {"a.png", true, 0},  {"a-%05d.png", true, 0},
               {"a-%d.png", true, 0},      {"", true, 0},       {"a.mp4", false, 40},
               {"a.webm", false, 38},      {"a.y4m", false, 44}};
    save_frames("a.safetensors", 9, rgb);
    save_clip("a.png", 9, rgb);
    save_clip("a.mp4", 9, rgb);
    save_clip("a.webm", 9, rgb);
    save_clip("a.y4m", 9, rgb);
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        comparison c = must_compare("a.safetensors", row[i].name);
        assert_int_equal(c.frames, 9);
        assert_int_equal(c.chunks, 3);
        assert_true(c.width == W && c.height == H);
        assert_true(c.lossless == row[i].lossless);
        if (row[i].lossless ? c.all.most != 0 : wan_quality_psnr(c.worst.mse) < row[i].psnr)
            fail_msg("%s: %.2f dB", row[i].name, wan_quality_psnr(c.worst.mse));
        wan_comparison_close(&c);
    }
    free(rgb);
}

/* As docs/stages.md has it: cut off, not rounded. */
static void floats_become_bytes(void **state) {
    (void)state;
    uint8_t *rgb = draw(5, 0);
    float *f = malloc(5 * BYTES * sizeof *f);
    assert_non_null(f);
    for (int t = 0; t < 5; t++)
        for (int i = 0; i < W * H; i++)
            for (int c = 0; c < 3; c++) /* a third of a level above the byte */
                f[(c * 5 + t) * W * H + i] =
                    (float)((rgb[(t * W * H + i) * 3 + c] + 1.0 / 3) / 255 * 2 - 1);
    f[0] = 7; /* clamped */
    rgb[0] = 255;
    f[5 * W * H] = -7;
    rgb[1] = 0;
    save_tensor("f.safetensors", "pixels", wan_tensor(WAN_F32, WAN_DIMS(3, 5, H, W), f));
    save_frames("a.safetensors", 5, rgb);
    comparison c = must_compare("f.safetensors", "a.safetensors");
    assert_int_equal(c.all.most, 0);
    wan_comparison_close(&c);
    f[3 * W * H] = NAN; /* red of frame 3 */
    save_tensor("n.safetensors", "pixels", wan_tensor(WAN_F32, WAN_DIMS(3, 5, H, W), f));
    must_refuse(WAN_E_FORMAT, "a.safetensors", "n.safetensors", "not numbers in frame 3");
    free(f);
    free(rgb);
}

static void chunks_median_and_worst(void **state) {
    (void)state;
    uint8_t *a = draw(11, 0), *b = draw(11, 0);
    static const int off[11] = {1, 2, 2, 2, 2, 8, 0, 0, 0, 4, 4}; /* chunks 0, 1-4, 5-8, 9-10 */
    for (int t = 0; t < 11; t++)
        for (int i = 0; i < BYTES; i++)
            b[t * BYTES + i] = (uint8_t)(b[t * BYTES + i] + off[t]);
    save_frames("a.safetensors", 11, a);
    save_frames("b.safetensors", 11, b);
    comparison c = must_compare("a.safetensors", "b.safetensors");
    assert_int_equal(c.frames, 11);
    assert_int_equal(c.chunks, 4);
    static const double mse[4] = {1, 4, 16, 16}, mae[4] = {1, 2, 2, 4};
    for (int i = 0; i < 11; i++)
        assert_true(c.frame[i].mse == off[i] * off[i] && c.frame[i].mae == off[i]);
    for (int i = 0; i < 4; i++)
        assert_true(c.chunk[i].mse == mse[i] && c.chunk[i].mae == mae[i]);
    static const size_t first[] = {0, 1, 5, 9, 11};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(wan_chunk_first(&c, i), first[i]);
    assert_int_equal(c.worst_frame, 5);
    assert_int_equal(c.worst_chunk, 2);
    assert_true(c.worst.mse == 16 && c.worst.mae == 4 && c.worst.most == 8);
    assert_true(c.median.mse == 10 && c.median.mae == 2);
    assert_true(fabs(c.all.mse - (1 + 16 + 64 + 32) / 11.0) < 1e-12);
    assert_true(c.worst.ssim <= c.median.ssim && c.median.ssim < 1);
    size_t frame[WAN_SHEET_COLUMNS];
    static const size_t shown[] = {0, 2, 5, 6, 8, 10}; /* 5, the worst, took 4's place */
    assert_int_equal(wan_sheet_frames(&c, frame), 6);
    assert_memory_equal(frame, shown, sizeof shown);
    wan_comparison_close(&c);
    free(a);
    free(b);
}

static void contact_sheet(void **state) {
    (void)state;
    uint8_t *a = draw(2, 0), *b = draw(2, 3);
    error err = {0};
    picture p;
    save_frames("a.safetensors", 2, a);
    save_frames("b.safetensors", 2, b);
    comparison c = must_compare("a.safetensors", "b.safetensors");
    if (wan_compare_sheet(in_folder("a.safetensors"), in_folder("b.safetensors"), &c, 10, NULL,
                          in_folder("s.png"), &err) != WAN_OK ||
        wan_picture_open(in_folder("s.png"), &p, &err) != WAN_OK)
        fail_msg("%s", err.message);
    assert_int_equal(p.width, 2 * W + 2);
    assert_int_equal(p.height, 3 * H + 4);
    for (int t = 0; t < 2; t++)
        for (int y = 0; y < H; y++) {
            const uint8_t *row = p.rgb + (y * p.width + t * (W + 2)) * 3;
            assert_memory_equal(row, a + t * BYTES + y * W * 3, W * 3);
            row += (H + 2) * p.width * 3;
            assert_memory_equal(row, b + t * BYTES + y * W * 3, W * 3);
            row += (H + 2) * p.width * 3;
            for (int x = 0; x < W * 3; x++)
                assert_int_equal(row[x], 30);
        }
    wan_picture_close(&p);
    /* Neither clip may have become another meanwhile. */
    save_frames("b.safetensors", 1, b);
    assert_int_equal(wan_compare_sheet(in_folder("a.safetensors"), in_folder("b.safetensors"), &c,
                                       10, NULL, in_folder("t.png"), &err),
                     WAN_E_SHAPE);
    assert_int_equal(access(in_folder("t.png"), F_OK), -1);
    wan_comparison_close(&c);
    free(a);
    free(b);
}

static void other_sizes_and_counts(void **state) {
    (void)state;
    uint8_t *rgb = draw(9, 0);
    save_frames("a.safetensors", 9, rgb);
    save_frames("short.safetensors", 5, rgb);
    save_tensor("wide.safetensors", "frames", wan_tensor(WAN_U8, WAN_DIMS(9, W, H, 3), rgb));
    save_tensor("tiny.safetensors", "frames", wan_tensor(WAN_U8, WAN_DIMS(9, 10, W, 3), rgb));
    save_clip("short.webm", 5, rgb);
    save_clip("short.mp4", 5, rgb);
    must_refuse(WAN_E_SHAPE, "a.safetensors", "wide.safetensors", "is 64x48");
    must_refuse(WAN_E_SHAPE, "a.safetensors", "wide.safetensors", "is 48x64");
    must_refuse(WAN_E_SHAPE, "tiny.safetensors", "tiny.safetensors", "is 64x10");
    static const char *const shorter[] = {"short.safetensors", "short.webm", "short.mp4"};
    for (size_t i = 0; i < 3; i++) {
        must_refuse(WAN_E_SHAPE, "a.safetensors", shorter[i], "a.safetensors has 9 frames");
        must_refuse(WAN_E_SHAPE, "a.safetensors", shorter[i], "has 5");
        must_refuse(WAN_E_SHAPE, shorter[i], "a.safetensors", "a.safetensors has 9");
    }
    free(rgb);
}

static void copy_to(const char *from, const char *to) {
    char buffer[1 << 16];
    FILE *f = fopen(in_folder(from), "rb"), *g = fopen(in_folder(to), "wb");
    assert_true(f && g);
    size_t n = fread(buffer, 1, sizeof buffer, f);
    assert_int_equal(fwrite(buffer, 1, n, g), n);
    fclose(f);
    fclose(g);
}

static void series_of_pictures(void **state) {
    (void)state;
    uint8_t *rgb = draw(9, 0);
    save_frames("a.safetensors", 9, rgb);
    save_clip("a.png", 9, rgb);
    copy_to("a-00003.png", "a-3.png");
    must_refuse(WAN_E_FORMAT, "a.safetensors", "a.png", "have the same number");
    remove(in_folder("a-00003.png")); /* now 00002, 3, 00004: fine */
    comparison c = must_compare("a.safetensors", "");
    assert_int_equal(c.all.most, 0);
    wan_comparison_close(&c);
    remove(in_folder("a-3.png"));
    must_refuse(WAN_E_FORMAT, "a.safetensors", "a.png", "number 3 is missing");
    copy_to("a-00002.png", "b-00003.png");
    must_refuse(WAN_E_FORMAT, "a.safetensors", "", "two series");
    must_refuse(WAN_E_IO, "a.safetensors", "c-%05d.png", "no numbered PNG files");
    must_refuse(WAN_E_IO, "a.safetensors", "c.png", "no numbered PNG files");
    must_refuse(WAN_E_USAGE, "a.safetensors", "a-%s.png", "pattern");
    must_refuse(WAN_E_USAGE, "a.safetensors", "a-%05d%05d.png", "pattern");
    must_refuse(WAN_E_IO, "a.safetensors", "no/where.png", "No such file");
    uint8_t *big = calloc(1, (2 * W) * (2 * H) * 3);
    error err = {0};
    clip *other = wan_clip_open(
        &(clip_options){in_folder("a-00003.png"), 2 * W, 2 * H, 1, 16, 1, -1, 1, NULL}, &err);
    assert_non_null(other);
    assert_int_equal(wan_clip_frames(other, big, 1, &err), WAN_OK);
    assert_int_equal(wan_clip_close(other, &err), WAN_OK);
    must_refuse(WAN_E_FORMAT, "a.safetensors", "a.png", "is 128x96, the first picture 64x48");
    free(big);
    free(rgb);
}

/* Every length but the whole. */
static void cut_short(void **state) {
    (void)state;
    uint8_t *rgb = draw(9, 0);
    static const char *const name[] = {"a.mp4", "a.webm", "a.y4m", "a.safetensors"};
    static uint8_t bytes[1 << 20];
    save_frames("a.safetensors", 9, rgb);
    for (size_t i = 0; i < 4; i++) {
        if (i < 3)
            save_clip(name[i], 9, rgb);
        char cut[32];
        snprintf(cut, sizeof cut, "cut%s", strchr(name[i], '.'));
        FILE *f = fopen(in_folder(name[i]), "rb");
        assert_non_null(f);
        size_t size = fread(bytes, 1, sizeof bytes, f);
        fclose(f);
        assert_true(size > 1000 && size < sizeof bytes);
        for (size_t k = 0; k < 40; k++) {
            size_t n = k < 20 ? k * k : size - 1 - (k - 20) * size / 20;
            FILE *g = fopen(in_folder(cut), "wb");
            assert_non_null(g);
            assert_int_equal(fwrite(bytes, 1, n, g), n);
            fclose(g);
            error err = {0};
            comparison c;
            wan_status s = wan_compare(in_folder("a.safetensors"), in_folder(cut), NULL, &c, &err);
            if (s == WAN_OK && i == 1 && n > size - 64) {
                wan_comparison_close(&c); /* a .webm ends in an index that no frame needs */
                continue;
            }
            if (s == WAN_OK || s == WAN_E_INTERNAL || s != err.code || strlen(err.message) < 20)
                fail_msg("%s cut to %zu of %zu: %d \"%s\"", name[i], n, size, s, err.message);
        }
    }
    free(rgb);
}

static void tensors_that_are_none(void **state) {
    (void)state;
    uint8_t *rgb = draw(9, 0);
    save_frames("a.safetensors", 9, rgb);
    save_tensor("x.safetensors", "latents", wan_tensor(WAN_U8, WAN_DIMS(9, H, W, 3), rgb));
    must_refuse(WAN_E_SHAPE, "a.safetensors", "x.safetensors", "neither frames");
    save_tensor("x.safetensors", "frames", wan_tensor(WAN_I8, WAN_DIMS(9, H, W, 3), rgb));
    must_refuse(WAN_E_TYPE, "a.safetensors", "x.safetensors", "frames is I8; it must be U8");
    save_tensor("x.safetensors", "frames", wan_tensor(WAN_U8, WAN_DIMS(9, H, W * 3), rgb));
    must_refuse(WAN_E_SHAPE, "a.safetensors", "x.safetensors", "[9, 48, 192]");
    save_tensor("x.safetensors", "frames", wan_tensor(WAN_U8, WAN_DIMS(9, 3, W, H), rgb));
    must_refuse(WAN_E_SHAPE, "a.safetensors", "x.safetensors", "[9, 3, 64, 48]");
    save_tensor("x.safetensors", "frames", wan_tensor(WAN_U8, WAN_DIMS(0, H, W, 3), rgb));
    must_refuse(WAN_E_SHAPE, "a.safetensors", "x.safetensors", "[0, 48, 64, 3]");
    save_tensor("x.safetensors", "frames", wan_tensor(WAN_U8, WAN_DIMS(1, 1, 20000, 3), rgb));
    must_refuse(WAN_E_SHAPE, "a.safetensors", "x.safetensors", "[1, 1, 20000, 3]");
    must_refuse(WAN_E_IO, "a.safetensors", "absent.safetensors", "absent.safetensors");
    FILE *f = fopen(in_folder("words.txt"), "w");
    assert_non_null(f);
    fputs("nothing of the kind\n", f);
    fclose(f);
    must_refuse(WAN_E_FORMAT, "a.safetensors", "words.txt", "no clip");
    assert_int_equal(mkfifo(in_folder("pipe.mp4"), 0600), 0);
    must_refuse(WAN_E_IO, "a.safetensors", "pipe.mp4", "neither a file nor a folder");
    free(rgb);
}

static int stop_now(void *unused) {
    (void)unused;
    return 1;
}

static void stops_when_asked(void **state) {
    (void)state;
    uint8_t *rgb = draw(2, 0);
    error err = {0};
    comparison c;
    save_frames("a.safetensors", 2, rgb);
    const char *a = in_folder("a.safetensors");
    assert_int_equal(wan_compare(a, a, stop_now, &c, &err), WAN_E_CANCELLED);
    assert_null(c.frame);
    free(rgb);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(same_frames_in_every_kind, clean),
        cmocka_unit_test_teardown(floats_become_bytes, clean),
        cmocka_unit_test_teardown(chunks_median_and_worst, clean),
        cmocka_unit_test_teardown(contact_sheet, clean),
        cmocka_unit_test_teardown(other_sizes_and_counts, clean),
        cmocka_unit_test_teardown(series_of_pictures, clean),
        cmocka_unit_test_teardown(cut_short, clean),
        cmocka_unit_test_teardown(tensors_that_are_none, clean),
        cmocka_unit_test_teardown(stops_when_asked, clean),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
