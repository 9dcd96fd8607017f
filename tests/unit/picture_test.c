/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures of every kind against Pillow's reading of them (tools/make_pictures.py), and pictures
 * that are none. */
#include "media/picture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA WAN_TEST_DATA "/data/media/"

typedef struct row {
    char file[64], kind[8];
    int width, height, orientation, transparent, profile, tolerance;
    long offset;
} row;

static uint8_t *load(const char *name, size_t *size) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", DATA, name);
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

static bool next_row(FILE *f, row *r) {
    return fscanf(f, "%63s %7s %d %d %d %d %d %d %ld", r->file, r->kind, &r->width, &r->height,
                  &r->orientation, &r->transparent, &r->profile, &r->tolerance, &r->offset) == 9;
}

static void check_picture(const row *r, const uint8_t *want) {
    char path[512];
    picture p;
    error err = {0};
    snprintf(path, sizeof path, "%s%s", DATA, r->file);
    if (wan_picture_open(path, &p, &err) != WAN_OK)
        fail_msg("%s", err.message);
    if (p.width != r->width || p.height != r->height)
        fail_msg("%s: %dx%d, not %dx%d", r->file, p.width, p.height, r->width, r->height);
    assert_string_equal(p.kind, r->kind);
    if (p.orientation != r->orientation || p.transparent != r->transparent ||
        p.profile != r->profile)
        fail_msg("%s: orientation %d, transparent %d, profile %d", r->file, p.orientation,
                 p.transparent, p.profile);
    int worst = 0, sum = 0, n = p.width * p.height * 3;
    for (int i = 0; i < n; i++) {
        int d = abs(p.rgb[i] - want[i]);
        worst = d > worst ? d : worst;
        sum += d;
    }
    if (worst > r->tolerance)
        fail_msg("%s: off by %d levels, %.3f on average", r->file, worst, (double)sum / n);
    assert_true(p.peak >= (size_t)n);
    wan_picture_close(&p);
    assert_null(p.rgb);
}

static void all_kinds(void **state) {
    (void)state;
    size_t size;
    uint8_t *want = load("pictures.rgb", &size);
    FILE *f = fopen(DATA "pictures.txt", "r");
    assert_non_null(f);
    row r;
    int count = 0;
    for (; next_row(f, &r); count++) {
        assert_true((size_t)r.offset + (size_t)(r.width * r.height * 3) <= size);
        check_picture(&r, want + r.offset);
    }
    fclose(f);
    free(want);
    assert_true(count >= 70);
}

/* Bytes that must be refused with this status and these words. */
static void refused(const uint8_t *bytes, size_t size, const char *words) {
    picture p;
    error err = {0};
    wan_status status = wan_picture_open_bytes(bytes, size, "it.bin", &p, &err);
    if (status != WAN_E_IMAGE || !strstr(err.message, words) ||
        strncmp(err.message, "it.bin: ", 8) != 0)
        fail_msg("status %d, \"%s\", expected \"%s\"", status, err.message, words);
    assert_null(p.rgb);
}

/* No prefix of a picture is a picture, whatever the length. */
static void every_truncation(void **state) {
    (void)state;
    static const char *const name[] = {
        "rgb.png",  "palette-clear.png", "exif-6.png", "420.jpg",       "progressive.jpg",
        "cmyk.jpg", "exif-6.jpg",        "lossy.webp", "lossless.webp", "lossy-alpha.webp"};
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        size_t size;
        uint8_t *bytes = load(name[i], &size);
        for (size_t n = 0; n < size; n += 1 + size / 400) {
            uint8_t *part = malloc(n + !n); /* its own block, for the sanitizer to watch the end */
            assert_non_null(part);
            memcpy(part, bytes, n);
            refused(part, n, "");
            free(part);
        }
        free(bytes);
    }
}

/* Any byte changed: a picture of the same size or a clear error, never a crash. */
static void every_damage(void **state) {
    (void)state;
    static const char *const name[] = {
        "rgb.png",    "palette.png",         "420.jpg",     "progressive.jpg", "exif-6.jpg",
        "lossy.webp", "lossless-alpha.webp", "exif-8.webp", "exif-8.png"};
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        size_t size;
        uint8_t *bytes = load(name[i], &size);
        for (size_t n = 0; n < size; n += 1 + size / 300) {
            uint8_t keep = bytes[n];
            bytes[n] ^= (uint8_t)(1u << n % 8);
            picture p;
            error err = {0};
            wan_status status = wan_picture_open_bytes(bytes, size, "it.bin", &p, &err);
            assert_true(status == WAN_OK || status == WAN_E_IMAGE);
            assert_true((status == WAN_OK) == (err.message[0] == 0));
            wan_picture_close(&p);
            bytes[n] = keep;
        }
        free(bytes);
    }
}

static void lies(void **state) {
    (void)state;
    size_t size;
    uint8_t *b = load("rgb.png", &size);
    memcpy(b + 16, "\0\1\0\0\0\1\0\0", 8); /* 65536x65536 */
    refused(b, size, "is 65536x65536; pictures of up to 67108864 pixels");
    memset(b + 16, 0, 4);
    refused(b, size, "says it is 0x65536");
    free(b);
    b = load("420.jpg", &size);
    size_t frame = 2;
    while (b[frame] != 0xFF || b[frame + 1] != 0xC0)
        frame++;
    memcpy(b + frame + 5, "\xff\xff\xff\xff", 4);
    refused(b, size, "is 65535x65535; pictures of up to 67108864 pixels");
    b[frame + 1] = 0xC9;
    refused(b, size, "kind SOF9 with 8 bits");
    b[frame + 1] = 0xC0;
    memcpy(b + frame + 5, "\1\0\1\0", 4);
    refused(b, size, "this JPEG of 256x256 in");
    free(b);
    b = load("lossy.webp", &size);
    b[4]++;
    b[4]++;
    refused(b, size, "the WebP says");
    free(b);
    b = load("lossy-alpha.webp", &size);
    b[24] ^= 1; /* canvas width of VP8X */
    refused(b, size, "the WebP says 38x29, its pixels are 37x29");
    free(b);
    b = load("moving.webp.bad", &size);
    refused(b, size, "an animated WebP");
    free(b);
}

static void strangers(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *words;
    } stranger[] = {{"", 0, "is empty"},
                    {"GIF89a\1\0\1\0", 10, "this is a GIF"},
                    {"\0\0\0\x20"
                     "ftypavif",
                     12, "this is an AVIF"},
                    {"hello", 5, "PNG, JPEG and WebP pictures can be read"},
                    {"\x89PNG\r\n\x1a\n", 8, "cut short"},
                    {"\xff\xd8\xff", 3, "cut short"},
                    {"\xff\xd8\xff\xd9", 4, "without pixels"},
                    {"RIFF\4\0\0\0WEBP", 12, "without pixels"},
                    {"RIFF\1\0\0\0WEBP\37", 13, "says 9 bytes, its head alone has 12"}};
    for (size_t i = 0; i < sizeof stranger / sizeof stranger[0]; i++)
        refused((const uint8_t *)stranger[i].bytes, stranger[i].size, stranger[i].words);
}

static void files_that_are_none(void **state) {
    (void)state;
    picture p;
    error err = {0};
    assert_int_equal(wan_picture_open(DATA "nowhere.png", &p, &err), WAN_E_IO);
    assert_non_null(strstr(err.message, "nowhere.png: No such file"));
    err = (error){0};
    assert_int_equal(wan_picture_open(DATA, &p, &err), WAN_E_IO);
    assert_non_null(strstr(err.message, "not a regular file"));
    char path[] = "/tmp/wan-picture-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    err = (error){0};
    assert_int_equal(wan_picture_open(path, &p, &err), WAN_E_IMAGE);
    assert_non_null(strstr(err.message, "is empty"));
    assert_int_equal(ftruncate(fd, (off_t)WAN_PICTURE_MAX_BYTES + 1), 0);
    err = (error){0};
    assert_int_equal(wan_picture_open(path, &p, &err), WAN_E_IMAGE);
    assert_non_null(strstr(err.message, "has 268435457 bytes; pictures of up to 268435456"));
    close(fd);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes to it: must not hang */
    err = (error){0};
    assert_int_equal(wan_picture_open(path, &p, &err), WAN_E_IO);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_kinds),    cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_damage), cmocka_unit_test(lies),
        cmocka_unit_test(strangers),    cmocka_unit_test(files_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
