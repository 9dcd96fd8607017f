/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures and clips with the first, second, third ... allocation of ours failing, FFmpeg's objects
 * included: out of memory each time, nothing leaked (the sanitizer build tells), no file left, and
 * success in the end. */
#include <dirent.h>
#include <errno.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/resize.h"
#include "io/safetensors.h"
#include "media/clip.h"
#include "media/compare.h"
#include "media/picture.h"

#define DATA WAN_TEST_DATA "/data/media/"

static long left = -1; /* allocations that still succeed; negative: all */

static bool fails(void) {
    if (left < 0 || left-- > 0)
        return false;
    errno = ENOMEM;
    return true;
}

/* The linker sends our libraries' calls here (media.cmake). */
#define WRAP(type, name, parameters, arguments, failure)                                           \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters {                                                                \
        return fails() ? failure : __real_##name arguments;                                        \
    }

typedef int (*read_fn)(void *, uint8_t *, int);
#if LIBAVFORMAT_VERSION_MAJOR >= 61
typedef int (*write_fn)(void *, const uint8_t *, int);
#else
typedef int (*write_fn)(void *, uint8_t *, int);
#endif
typedef int64_t (*seek_fn)(void *, int64_t, int);

// clang-format off
WRAP(void *, malloc, (size_t n), (n), NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL)
WRAP(void *, realloc, (void *p, size_t n), (p, n), NULL)
WRAP(char *, strdup, (const char *s), (s), NULL)
WRAP(char *, strndup, (const char *s, size_t n), (s, n), NULL)
WRAP(void *, av_malloc, (size_t n), (n), NULL)
WRAP(char *, av_strdup, (const char *s), (s), NULL)
WRAP(AVPacket *, av_packet_alloc, (void), (), NULL)
WRAP(int, av_new_packet, (AVPacket *p, int n), (p, n), AVERROR(ENOMEM))
WRAP(AVFrame *, av_frame_alloc, (void), (), NULL)
WRAP(int, av_frame_get_buffer, (AVFrame *f, int n), (f, n), AVERROR(ENOMEM))
WRAP(AVCodecContext *, avcodec_alloc_context3, (const AVCodec *c), (c), NULL)
WRAP(AVFormatContext *, avformat_alloc_context, (void), (), NULL)
WRAP(AVStream *, avformat_new_stream, (AVFormatContext *f, const AVCodec *c), (f, c), NULL)
WRAP(int, avformat_alloc_output_context2, (AVFormatContext **f, const AVOutputFormat *o, const char *m, const char *n),
     (f, o, m, n), AVERROR(ENOMEM))
WRAP(AVIOContext *, avio_alloc_context, (unsigned char *b, int n, int w, void *o, read_fn r, write_fn p, seek_fn s),
     (b, n, w, o, r, p, s), NULL)
WRAP(int, av_dict_set, (AVDictionary **d, const char *k, const char *v, int f), (d, k, v, f), AVERROR(ENOMEM))
// clang-format on

static char folder[64];

static int files_left(void) {
    DIR *d = opendir(folder);
    int n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static bool read_picture(const char *name, error *err) {
    char path[512];
    picture p;
    snprintf(path, sizeof path, "%s%s", DATA, name);
    wan_status status = wan_picture_open(path, &p, err);
    assert_true((status == WAN_OK) == (p.rgb != NULL));
    wan_picture_close(&p);
    return status == WAN_OK;
}

static bool write_clip(const char *name, error *err) {
    static const uint8_t rgb[2 * 32 * 32 * 3];
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    clip *c = wan_clip_open(&(clip_options){path, 32, 32, 2, 16, 1, -1, 1, "{}"}, err);
    if (!c)
        return false;
    wan_clip_frames(c, rgb, 2, NULL); /* close repeats what went wrong */
    return wan_clip_close(c, err) == WAN_OK;
}

static bool inspect_clip(const char *name, error *err) {
    char path[128];
    clip_info info;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    wan_status status = wan_clip_inspect(path, &info, err);
    wan_clip_info_close(&info);
    return status == WAN_OK;
}

static bool compare_clips(const char *name, error *err) {
    char a[128], b[128], sheet[128];
    comparison c;
    snprintf(a, sizeof a, "%s/%s", folder, name);
    snprintf(b, sizeof b, "%s/b.safetensors", folder);
    snprintf(sheet, sizeof sheet, "%s/sheet.png", folder);
    if (wan_compare(a, b, NULL, &c, err) != WAN_OK)
        return false;
    wan_status status = wan_compare_sheet(a, b, &c, 8, NULL, sheet, err);
    wan_comparison_close(&c);
    if (status == WAN_OK)
        unlink(sheet);
    return status == WAN_OK;
}

static void write_tensors(const char *name) {
    static uint8_t rgb[2 * 32 * 32 * 3];
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    named_tensor n = {"frames", wan_tensor(WAN_U8, WAN_DIMS(2, 32, 32, 3), rgb)};
    assert_int_equal(wan_safetensors_write(path, &n, 1, NULL, NULL), WAN_OK);
}

static bool stretch(const char *name, error *err) {
    (void)name;
    static const uint8_t src[5 * 7 * 3];
    uint8_t dst[8 * 4 * 3];
    return wan_resize_lanczos(src, 5, 7, dst, 8, 4, err) == WAN_OK;
}

static void each_fails(bool (*act)(const char *name, error *err), const char *name) {
    int before = files_left();
    for (long n = 0; n < 1000; n++) {
        error err = {0};
        left = n;
        bool done = act(name, &err), all = left >= 0; /* not one of them failed */
        left = -1;
        if (done && all) {
            assert_true(n > 2);
            return;
        }
        if (done) { /* an allocation that one can do without */
            before = files_left();
            continue;
        }
        if (err.code != WAN_E_MEMORY || files_left() != before)
            fail_msg("allocation %ld of %s: %d \"%s\", %d files", n, name, err.code, err.message,
                     files_left() - before);
    }
    fail_msg("%s never works", name);
}

static void every_allocation(void **state) {
    (void)state;
    static const char *const clips[] = {"a.mp4", "a.webm", "a.gif", "a.y4m", "a.png"};
    strcpy(folder, "/tmp/wan-memory-XXXXXX");
    assert_non_null(mkdtemp(folder));
    each_fails(stretch, "resize");
    each_fails(read_picture, "exif-6.png");
    each_fails(read_picture, "exif-6.jpg");
    each_fails(read_picture, "lossy-alpha.webp");
    for (size_t i = 0; i < sizeof clips / sizeof clips[0]; i++) {
        each_fails(write_clip, clips[i]);
        if (i < 2)
            each_fails(inspect_clip, clips[i]);
    }
    write_tensors("b.safetensors");
    each_fails(compare_clips, "b.safetensors");
    each_fails(compare_clips, "a.png");
    each_fails(compare_clips, "a.mp4");
    each_fails(compare_clips, "a.webm");
    each_fails(compare_clips, "a.y4m");
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    assert_int_equal(rmdir(folder), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
