/* SPDX-License-Identifier: Apache-2.0 */
/* Clips written and read back: colours, tags, durations, and what happens when the disk or the
 * reader is gone. */
#include "media/clip.h"

#include <errno.h>
#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "media/picture.h"
#include "media/yuv.h"
#include "workbench.h"

#define SETTINGS "{\"prompt\":\"a \\\"red\\\" circle; \xc3\xa9\",\"seed\":7}"

/* -------------------------------------------------------------------------------------------------------
 * a workbench */

static uint8_t *load(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing", path);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, f), *size);
    fclose(f);
    return bytes;
}

static const uint8_t bar[8][3] = {{255, 255, 255}, {255, 255, 0}, {0, 255, 255}, {0, 255, 0},
                                  {255, 0, 255},   {255, 0, 0},   {0, 0, 255},   {0, 0, 0}};

/* Eight bars side by side. */
static void draw_bars(uint8_t *rgb, int w, int h) {
    for (int i = 0; i < w * h; i++)
        memcpy(rgb + 3 * i, bar[i % w * 8 / w], 3);
}

/* A gradient with a square that moves: something different in every frame. */
static void draw_moving(uint8_t *rgb, int w, int h, int t) {
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++, rgb += 3) {
            bool in = x >= t && x < t + w / 4 && y >= h / 4 && y < h / 2;
            rgb[0] = (uint8_t)(in ? 230 : x * 255 / w);
            rgb[1] = (uint8_t)(in ? 40 : y * 255 / h);
            rgb[2] = (uint8_t)(in ? 20 : 90);
        }
}

/* Noise does not compress: it fills a disk fast. */
static void draw_noise(uint8_t *rgb, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        rgb[i] = (uint8_t)(seed >> 24);
    }
}

enum { BARS, MOVING, NOISE };

static clip_options options(const char *path, int w, int h, int frames, int num, int den) {
    return (clip_options){path, w, h, frames, num, den, -1, 1, SETTINGS};
}

/* A whole clip, frames in groups of up to four as the decoder gives them. */
static wan_status write_clip(const clip_options *o, int what, error *err) {
    size_t frame = (size_t)o->width * (size_t)o->height * 3;
    uint8_t *rgb = malloc(4 * frame);
    assert_non_null(rgb);
    clip *c = wan_clip_open(o, err);
    wan_status status = c ? WAN_OK : err->code;
    for (int t = 0; status == WAN_OK && t < o->frames;) {
        int n = t == 0 ? 1 : o->frames - t < 4 ? (int)o->frames - t : 4;
        for (int i = 0; i < n; i++, t++) {
            uint8_t *at = rgb + (size_t)i * frame;
            if (what == BARS)
                draw_bars(at, o->width, o->height);
            else if (what == MOVING)
                draw_moving(at, o->width, o->height, t);
            else
                draw_noise(at, frame, (uint32_t)t);
        }
        status = wan_clip_frames(c, rgb, n, err);
    }
    if (status == WAN_OK)
        status = wan_clip_close(c, err);
    else
        wan_clip_abort(c);
    free(rgb);
    return status;
}

static void must_write(const clip_options *o, int what) {
    error err = {0};
    if (write_clip(o, what, &err) != WAN_OK)
        fail_msg("%s", err.message);
}

/* -----------------------------------------------------------------------------------------------------
 * reading back */

typedef void (*frame_fn)(const AVFrame *f, int index);

/* Decodes the file with FFmpeg, calls fn for each frame, returns how many.  Durations add up in
 * *ticks. */
static int decode_clip(const char *path, frame_fn fn, AVRational *base, int64_t *ticks) {
    AVFormatContext *f = NULL;
    assert_int_equal(avformat_open_input(&f, path, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(f, NULL) >= 0);
    assert_int_equal(f->nb_streams, 1);
    AVStream *s = f->streams[0];
    const AVCodec *codec = avcodec_find_decoder(s->codecpar->codec_id);
    AVCodecContext *c = avcodec_alloc_context3(codec);
    assert_true(c && avcodec_parameters_to_context(c, s->codecpar) >= 0);
    c->thread_count = 1;
    assert_int_equal(avcodec_open2(c, codec, NULL), 0);
    AVPacket *p = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    int count = 0;
    bool more = true;
    *base = s->time_base;
    *ticks = s->duration;
    while (more) {
        more = av_read_frame(f, p) >= 0;
        assert_true(avcodec_send_packet(c, more ? p : NULL) >= 0);
        av_packet_unref(p);
        while (avcodec_receive_frame(c, frame) >= 0) {
            if (fn)
                fn(frame, count);
            count++;
        }
    }
    av_frame_free(&frame);
    av_packet_free(&p);
    avcodec_free_context(&c);
    avformat_close_input(&f);
    return count;
}

static double luma(const uint8_t *c) {
    return 16 + 219 * (0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]) / 255;
}

/* The middle of each bar, three components against the formula. */
static void check_bars(const AVFrame *f, int index) {
    (void)index;
    assert_int_equal(f->format, AV_PIX_FMT_YUV420P);
    assert_int_equal(f->color_range, AVCOL_RANGE_MPEG);
    assert_int_equal(f->colorspace, AVCOL_SPC_BT709);
    assert_int_equal(f->color_primaries, AVCOL_PRI_BT709);
    assert_int_equal(f->color_trc, AVCOL_TRC_BT709);
    assert_int_equal(f->chroma_location, AVCHROMA_LOC_LEFT);
    for (int i = 0; i < 8; i++) {
        int x = f->width * (2 * i + 1) / 16, y = f->height / 2;
        double l = luma(bar[i]), unit = (l - 16) / 219;
        double cb = 128 + 224 * (bar[i][2] / 255.0 - unit) / 1.8556,
               cr = 128 + 224 * (bar[i][0] / 255.0 - unit) / 1.5748;
        assert_true(fabs(f->data[0][y * f->linesize[0] + x] - l) <= 1);
        assert_true(fabs(f->data[1][y / 2 * f->linesize[1] + x / 2] - cb) <= 2);
        assert_true(fabs(f->data[2][y / 2 * f->linesize[2] + x / 2] - cr) <= 2);
    }
}

static size_t find_bytes(const uint8_t *bytes, size_t size, const char *what, size_t n) {
    const uint8_t *at = memmem(bytes, size, what, n);
    return at ? (size_t)(at - bytes) : SIZE_MAX;
}

static void mp4_colours_and_tags(void **state) {
    (void)state;
    const char *path = in_folder("bars.mp4");
    clip_options o = options(path, 128, 64, 17, 16, 1);
    must_write(&o, BARS);
    AVRational base;
    int64_t ticks;
    assert_int_equal(decode_clip(path, check_bars, &base, &ticks), 17);
    size_t size;
    uint8_t *bytes = load(path, &size);
    /* matrix, primaries and transfer 1 (BT.709), limited range; the index before the data */
    assert_true(find_bytes(bytes, size, "colrnclx\0\1\0\1\0\1\0", 15) != SIZE_MAX);
    assert_true(find_bytes(bytes, size, "moov", 4) < find_bytes(bytes, size, "mdat", 4));
    free(bytes);
    clip_info info;
    error err = {0};
    assert_int_equal(wan_clip_inspect(path, &info, &err), WAN_OK);
    assert_int_equal(info.width, 128);
    assert_int_equal(info.height, 64);
    assert_int_equal(info.frames, 17);
    assert_true(info.fps_num == 16 && info.fps_den == 1);
    assert_true(info.seconds == 1.0625);
    assert_string_equal(info.settings, SETTINGS);
    wan_clip_info_close(&info);
    assert_int_equal(entries(true), 1);
}

static void mp4_durations(void **state) {
    (void)state;
    static const struct {
        int frames, num, den;
    } row[] = {{1, 24, 1},        {5, 16, 1}, {17, 16, 1}, {121, 24, 1},
               {49, 24000, 1001}, {9, 1, 2},  {33, 60, 1}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const char *path = in_folder("clip.mp4");
        clip_options o = options(path, 64, 32, row[i].frames, row[i].num, row[i].den);
        must_write(&o, MOVING);
        AVRational base;
        int64_t ticks;
        assert_int_equal(decode_clip(path, NULL, &base, &ticks), row[i].frames);
        /* exactly frames * den / num seconds */
        assert_true(ticks * base.num * row[i].num ==
                    (int64_t)row[i].frames * row[i].den * base.den);
        clip_info info;
        error err = {0};
        assert_int_equal(wan_clip_inspect(path, &info, &err), WAN_OK);
        assert_true((int64_t)info.fps_num * row[i].den == (int64_t)info.fps_den * row[i].num);
        wan_clip_info_close(&info);
    }
    entries(true);
}

static void same_bytes_again(void **state) {
    (void)state;
    static const char *const name[] = {"a.mp4", "a.webm", "a.gif", "a.y4m", "a.png"};
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        size_t size[2];
        uint8_t *bytes[2];
        for (int k = 0; k < 2; k++) {
            clip_options o =
                options(in_folder(name[i]), 64, 48, strstr(name[i], "png") ? 1 : 5, 16, 1);
            must_write(&o, MOVING);
            bytes[k] = load(in_folder(name[i]), &size[k]);
        }
        if (size[0] != size[1] || memcmp(bytes[0], bytes[1], size[0]) != 0)
            fail_msg("%s differs from run to run", name[i]);
        free(bytes[0]);
        free(bytes[1]);
    }
    entries(true);
}

static void check_moving(const AVFrame *f, int index) {
    static uint8_t rgb[64 * 48 * 3];
    draw_moving(rgb, 64, 48, index);
    double sum = 0;
    for (int y = 0; y < 48; y++)
        for (int x = 0; x < 64; x++)
            sum += fabs(f->data[0][y * f->linesize[0] + x] - luma(rgb + 3 * (y * 64 + x)));
    assert_true(sum / (64 * 48) < 1.5);
}

static void webm_plays(void **state) {
    (void)state;
    const char *path = in_folder("clip.webm");
    clip_options o = options(path, 64, 48, 33, 24, 1);
    o.crf = 10;
    must_write(&o, MOVING);
    AVRational base;
    int64_t ticks;
    assert_int_equal(decode_clip(path, check_moving, &base, &ticks), 33);
    o = options(path, 128, 64, 5, 24, 1);
    must_write(&o, BARS);
    assert_int_equal(decode_clip(path, check_bars, &base, &ticks), 5);
    clip_info info;
    error err = {0};
    assert_int_equal(wan_clip_inspect(path, &info, &err), WAN_OK);
    assert_int_equal(info.width, 128);
    assert_true(info.fps_num == 24 && info.fps_den == 1);
    assert_true(fabs(info.seconds - 5.0 / 24) < 0.002); /* WebM counts milliseconds */
    assert_string_equal(info.settings, SETTINGS);
    wan_clip_info_close(&info);
    assert_int_equal(entries(true), 1);
}

/* -------------------------------------------------------------------------------------------------------
 * GIF */

static double gif_sum;
static int gif_worst;

static void check_gif(const AVFrame *f, int index) {
    static uint8_t rgb[64 * 48 * 3];
    assert_int_equal(f->format, AV_PIX_FMT_BGRA);
    draw_moving(rgb, 64, 48, index);
    for (int i = 0; i < 64 * 48; i++) {
        const uint8_t *p = f->data[0] + i / 64 * f->linesize[0] + i % 64 * 4;
        for (int c = 0; c < 3; c++) {
            int d = abs(p[2 - c] - rgb[3 * i + c]);
            gif_sum += d;
            gif_worst = d > gif_worst ? d : gif_worst;
        }
        assert_int_equal(p[3], 255);
    }
}

/* Delays stand in graphic control extensions: 21 F9 04, flags, two bytes of 1/100 s, index, 00. */
static int gif_delays(const uint8_t *b, size_t size, int *delay, int room) {
    int n = 0;
    size_t at = 13 + (b[10] & 0x80 ? 3u << ((b[10] & 7) + 1) : 0);
    while (at < size && b[at] != 0x3B) {
        if (b[at] == 0x21 && b[at + 1] == 0xF9) {
            assert_true(n < room);
            delay[n++] = b[at + 4] | b[at + 5] << 8;
        }
        if (b[at] == 0x21)
            at += 2;
        else { /* a picture */
            assert_int_equal(b[at], 0x2C);
            at += 11 + (b[at + 9] & 0x80 ? 3u << ((b[at + 9] & 7) + 1) : 0);
        }
        while (b[at])
            at += b[at] + 1u;
        at++;
    }
    assert_true(at < size && b[at] == 0x3B);
    return n;
}

static void gif_colours_and_delays(void **state) {
    (void)state;
    static const struct {
        int frames, num, den, sum;
    } row[] = {{33, 16, 1, 206}, {25, 24, 1, 104}, {9, 24000, 1001, 38},
               {9, 50, 1, 18},   {3, 1, 2, 600},   {1, 16, 1, 0}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const char *path = in_folder("clip.gif");
        clip_options o = options(path, 64, 48, row[i].frames, row[i].num, row[i].den);
        must_write(&o, MOVING);
        AVRational base;
        int64_t ticks;
        gif_sum = gif_worst = 0;
        assert_int_equal(decode_clip(path, check_gif, &base, &ticks), row[i].frames);
        if (gif_sum / (64 * 48 * 3) / row[i].frames > 5 || gif_worst > 40)
            fail_msg("off by %.2f on average, %d at most", gif_sum / (64 * 48 * 3) / row[i].frames,
                     gif_worst);
        size_t size;
        uint8_t *bytes = load(path, &size);
        int delay[40], sum = 0, n = gif_delays(bytes, size, delay, 40);
        assert_int_equal(n, row[i].frames);
        double exact = 100.0 * row[i].den / row[i].num;
        for (int k = 0; k < n; k++) {
            sum += delay[k];
            if (n > 1 && fabs(delay[k] - exact) >= 1)
                fail_msg("frame %d of %d at %d/%d lasts %d/100 s", k, n, row[i].num, row[i].den,
                         delay[k]);
        }
        if (abs(sum - row[i].sum) > 1)
            fail_msg("%d frames at %d/%d last %d/100 s", n, row[i].num, row[i].den, sum);
        if (n > 1)
            assert_true(find_bytes(bytes, size, "NETSCAPE2.0\3\1\0\0", 15) !=
                        SIZE_MAX); /* for ever */
        free(bytes);
    }
    entries(true);
}

/* ----------------------------------------------------------------------------------------------------
 * PNG and y4m */

static void png_is_exact(void **state) {
    (void)state;
    static uint8_t want[35 * 21 * 3];
    clip_options o = options(in_folder("a.png"), 35, 21, 9, 16, 1);
    char name[300];
    assert_false(wan_clip_replaces(o.path, 9, name, sizeof name));
    must_write(&o, MOVING);
    assert_int_equal(entries(false), 9);
    assert_true(wan_clip_replaces(o.path, 9, name, sizeof name));
    assert_string_equal(name, in_folder("a-00000.png"));
    for (int t = 0; t < 9; t++) {
        picture p;
        error err = {0};
        snprintf(name, sizeof name, "a-%05d.png", t);
        assert_int_equal(wan_picture_open(in_folder(name), &p, &err), WAN_OK);
        draw_moving(want, 35, 21, t);
        assert_true(p.width == 35 && p.height == 21);
        assert_memory_equal(p.rgb, want, sizeof want);
        wan_picture_close(&p);
    }
    assert_int_equal(entries(true), 9);
    o.frames = 1;
    must_write(&o, MOVING);
    assert_int_equal(access(in_folder("a.png"), F_OK), 0);
    assert_int_equal(entries(true), 1);
}

/* Nothing under its name before the end, nothing at all after an abort, nothing moved when a place
 * is taken. */
static void png_all_or_nothing(void **state) {
    (void)state;
    static uint8_t rgb[32 * 32 * 3];
    error err = {0};
    clip_options o = options(in_folder("a.png"), 32, 32, 3, 16, 1);
    clip *c = wan_clip_open(&o, &err);
    assert_non_null(c);
    assert_int_equal(wan_clip_frames(c, rgb, 1, &err), WAN_OK);
    assert_int_equal(wan_clip_frames(c, rgb, 1, &err), WAN_OK);
    assert_int_equal(access(in_folder("a-00000.png"), F_OK), -1);
    wan_clip_abort(c);
    assert_int_equal(entries(false), 0);
    assert_int_equal(mkdir(in_folder("a-00002.png"), 0700), 0);
    assert_int_equal(write_clip(&o, MOVING, &err), WAN_E_OUTPUT);
    assert_non_null(strstr(err.message, "a-00002.png: is there and not a regular file"));
    assert_int_equal(entries(true), 1);
}

static void yuv_is_the_formula(void **state) {
    (void)state;
    enum { W = 34, H = 22 };
    static uint8_t rgb[W * H * 3], y[W * H], u[W * H / 4], v[W * H / 4];
    draw_noise(rgb, sizeof rgb, 3);
    memset(rgb, 255, 60);
    memset(rgb + 60, 0, 60);
    wan_yuv_from_rgb(rgb, W, H, (uint8_t *[]){y, u, v}, (int[]){W, W / 2, W / 2});
    for (int i = 0; i < W * H; i++)
        assert_true(fabs(y[i] - luma(rgb + 3 * i)) < 0.51);
    for (int i = 0; i < W * H / 4; i++) {
        int cx = i % (W / 2) * 2, cy = i / (W / 2) * 2;
        double c[3] = {0};
        for (int dy = 0; dy < 2; dy++)
            for (int dx = -1; dx <= 1; dx++)
                for (int k = 0; k < 3; k++)
                    c[k] += rgb[((cy + dy) * W + (cx + dx < 0 ? 0 : cx + dx)) * 3 + k] *
                            (dx ? 1 : 2) / 8.0 / 255;
        double l = 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
        assert_true(fabs(u[i] - (128 + 224 * (c[2] - l) / 1.8556)) < 0.52);
        assert_true(fabs(v[i] - (128 + 224 * (c[0] - l) / 1.5748)) < 0.52);
    }
}

static void y4m_is_plain(void **state) {
    (void)state;
    static uint8_t rgb[32 * 16 * 3], plane[32 * 16 * 3 / 2];
    const char head[] = "YUV4MPEG2 W32 H16 F24000:1001 Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED\n";
    clip_options o = options(in_folder("a.y4m"), 32, 16, 5, 24000, 1001);
    must_write(&o, MOVING);
    size_t size, at = sizeof head - 1;
    uint8_t *bytes = load(o.path, &size);
    assert_int_equal(size, at + 5 * (6 + sizeof plane));
    assert_memory_equal(bytes, head, at);
    for (int t = 0; t < 5; t++, at += 6 + sizeof plane) {
        draw_moving(rgb, 32, 16, t);
        wan_yuv_from_rgb(rgb, 32, 16, (uint8_t *[]){plane, plane + 512, plane + 640},
                         (int[]){32, 16, 16});
        assert_memory_equal(bytes + at, "FRAME\n", 6);
        assert_memory_equal(bytes + at + 6, plane, sizeof plane);
    }
    free(bytes);
    entries(true);
}

/* -------------------------------------------------------------------------------------------------
 * what goes wrong */

/* However few bytes the disk takes, the answer is WAN_E_SPACE and the folder is empty. */
static void full_disk(void **state) {
    (void)state;
    static const char *const name[] = {"a.mp4", "a.webm", "a.gif", "a.y4m", "a.png", "one.png"};
    struct rlimit keep;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &keep), 0);
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        clip_options o =
            options(in_folder(name[i]), 64, 64, strcmp(name[i], "one.png") ? 5 : 1, 16, 1);
        must_write(&o, NOISE);
        size_t size;
        free(load(strcmp(name[i], "a.png") ? o.path : in_folder("a-00003.png"), &size));
        entries(true);
        for (size_t part = 0; part < 8; part++) {
            struct rlimit tight = {part == 7 ? size - 1 : size * part / 7, keep.rlim_max};
            error err = {0};
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
            wan_status status = write_clip(&o, NOISE, &err);
            setrlimit(RLIMIT_FSIZE, &keep);
            if (status != WAN_E_SPACE || !strstr(err.message, name[i]))
                fail_msg("%s, %zu of %zu bytes: status %d, \"%s\"", name[i], (size_t)tight.rlim_cur,
                         size, status, err.message);
            assert_int_equal(entries(false), 0);
        }
    }
}

/* Runs a clip to standard output while that is fd. */
static wan_status to_stdout(int fd, error *err) {
    clip_options o = options("-", 64, 64, 5, 16, 1);
    fflush(stdout);
    int keep = dup(STDOUT_FILENO);
    assert_true(keep >= 0 && dup2(fd, STDOUT_FILENO) >= 0);
    wan_status status = write_clip(&o, NOISE, err);
    dup2(keep, STDOUT_FILENO);
    close(keep);
    return status;
}

static void standard_output(void **state) {
    (void)state;
    error err = {0};
    int fd = open(in_folder("out"), O_CREAT | O_RDWR, 0600);
    assert_int_equal(to_stdout(fd, &err), WAN_OK);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    const char head[] = "YUV4MPEG2 W64 H64 F16:1 Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED\n";
    assert_int_equal(st.st_size, sizeof head - 1 + 5 * (6 + 64 * 64 * 3 / 2));
    close(fd);
    fd = open("/dev/full", O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(to_stdout(fd, &err), WAN_E_SPACE);
    assert_non_null(strstr(err.message, "standard output: cannot write: No space left"));
    close(fd);
    int ends[2];
    err = (error){0};
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    assert_int_equal(to_stdout(ends[1], &err), WAN_E_OUTPUT);
    assert_non_null(strstr(err.message, "standard output: cannot write: Broken pipe"));
    close(ends[1]);
    entries(true);
}

static void refused(clip_options o, wan_status want, const char *words) {
    error err = {0};
    clip *c = wan_clip_open(&o, &err);
    if (c || err.code != want || !strstr(err.message, words))
        fail_msg("status %d, \"%s\", expected \"%s\"", err.code, err.message, words);
    assert_int_equal(entries(false), 0);
}

static void bad_options(void **state) {
    (void)state;
    refused(options(in_folder("a.avi"), 64, 64, 5, 16, 1), WAN_E_USAGE,
            "a.avi: a clip ends in .mp4, .webm");
    refused(options(in_folder(".mp4"), 64, 64, 5, 16, 1), WAN_E_USAGE, "a clip ends in");
    refused(options(in_folder("a.mp4"), 63, 64, 5, 16, 1), WAN_E_USAGE,
            "63x64, but .mp4 needs even sides");
    refused(options(in_folder("a.mp4"), 0, 64, 5, 16, 1), WAN_E_USAGE, "a clip of 0x64");
    refused(options(in_folder("a.png"), 64, 64, 100000, 16, 1), WAN_E_USAGE, "100000 frames");
    refused(options(in_folder("a.png"), 64, 64, 5, 16, 0), WAN_E_USAGE, "16/0 frames a second");
    refused(options(in_folder("a.gif"), 64, 64, 5, 60, 1), WAN_E_USAGE,
            "60 frames a second; a .gif shows at most 50");
    refused(options(in_folder("a.y4m"), 16384, 16384, 99999, 16, 1), WAN_E_SPACE, "may need 40264");
    refused(options(in_folder("no/a.mp4"), 64, 64, 5, 16, 1), WAN_E_OUTPUT, "no/a.mp4");
    refused(options(in_folder("no/a.png"), 64, 64, 5, 16, 1), WAN_E_OUTPUT, "No such file");
    refused(options("/proc/a.webm", 64, 64, 5, 16, 1), WAN_E_OUTPUT, "/proc/a.webm");
    clip_options o = options(in_folder("a.mp4"), 64, 64, 5, 16, 1);
    o.crf = 0;
    refused(o, WAN_E_USAGE, "an .mp4 takes 1 to 51");
    assert_true(wan_clip_known("a.MP4") && wan_clip_known("-") && !wan_clip_known("mp4"));
}

/* A colon in a name is no protocol; an old file stays until the new one is whole. */
static void odd_names(void **state) {
    (void)state;
    error err = {0};
    clip_options o = options(in_folder("http:x %s.mp4"), 64, 64, 5, 16, 1);
    FILE *f = fopen(o.path, "w");
    fputs("old", f);
    fclose(f);
    clip *c = wan_clip_open(&o, &err);
    assert_non_null(c);
    static uint8_t rgb[64 * 64 * 3];
    assert_int_equal(wan_clip_frames(c, rgb, 1, &err), WAN_OK);
    assert_int_equal(wan_clip_close(c, &err), WAN_E_INTERNAL); /* four frames short */
    size_t size;
    uint8_t *bytes = load(o.path, &size);
    assert_int_equal(size, 3);
    free(bytes);
    must_write(&o, MOVING);
    clip_info info;
    assert_int_equal(wan_clip_inspect(o.path, &info, &err), WAN_OK);
    assert_int_equal(info.frames, 5);
    wan_clip_info_close(&info);
    assert_int_equal(entries(true), 1);
}

static void too_many_frames(void **state) {
    (void)state;
    static uint8_t rgb[3 * 32 * 32 * 3];
    error err = {0}, again = {0};
    clip_options o = options(in_folder("a.y4m"), 32, 32, 2, 16, 1);
    clip *c = wan_clip_open(&o, &err);
    assert_non_null(c);
    assert_int_equal(wan_clip_frames(c, rgb, 3, &err), WAN_E_INTERNAL);
    assert_int_equal(entries(false), 0);
    assert_int_equal(wan_clip_close(c, &again), WAN_E_INTERNAL);
    assert_string_equal(err.message, again.message);
}

/* Any damage to a clip's header: an answer or a clear error. */
static void inspect_damage(void **state) {
    (void)state;
    static const char *const name[] = {"a.mp4", "a.webm"};
    for (int k = 0; k < 2; k++) {
        clip_options o = options(in_folder(name[k]), 64, 32, 5, 16, 1);
        must_write(&o, MOVING);
        size_t size;
        uint8_t *bytes = load(o.path, &size);
        const char *path = in_folder("broken");
        for (size_t i = 0; i < 600; i++) {
            size_t at = i * 7 % (size < 1500 ? size : 1500);
            bytes[at] ^= (uint8_t)(1u << i % 8);
            FILE *f = fopen(path, "wb");
            fwrite(bytes, 1, i % 3 ? size : at, f);
            fclose(f);
            bytes[at] ^= (uint8_t)(1u << i % 8);
            clip_info info;
            error err = {0};
            wan_status status = wan_clip_inspect(path, &info, &err);
            if ((status != WAN_OK && status != WAN_E_FORMAT) ||
                (status == WAN_OK) != (err.message[0] == 0))
                fail_msg("status %d, \"%s\"", status, err.message);
            wan_clip_info_close(&info);
        }
        free(bytes);
    }
    clip_info info;
    error err = {0};
    assert_int_equal(wan_clip_inspect(in_folder("nowhere"), &info, &err), WAN_E_IO);
    entries(true);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_folder, close_folder)
    const struct CMUnitTest tests[] = {
        TEST(mp4_colours_and_tags),
        TEST(mp4_durations),
        TEST(same_bytes_again),
        TEST(webm_plays),
        TEST(gif_colours_and_delays),
        TEST(png_is_exact),
        TEST(png_all_or_nothing),
        TEST(yuv_is_the_formula),
        TEST(y4m_is_plain),
        TEST(full_disk),
        TEST(standard_output),
        TEST(bad_options),
        TEST(odd_names),
        TEST(too_many_frames),
        TEST(inspect_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
