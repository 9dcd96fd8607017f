/* SPDX-License-Identifier: Apache-2.0 */
#include "media/header.h"

#include <string.h>

#include "media/exif.h"

/* The bytes and what to call them; passed along by every reader below. */
typedef struct source {
    const uint8_t *at;
    size_t size;
    const char *name;
    error *err;
} source;

static uint32_t be16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}
static uint32_t be32(const uint8_t *p) {
    return be16(p) << 16 | be16(p + 2);
}
static uint32_t le16(const uint8_t *p) {
    return (uint32_t)p[1] << 8 | p[0];
}
static uint32_t le24(const uint8_t *p) {
    return (uint32_t)p[2] << 16 | le16(p);
}
static uint32_t le32(const uint8_t *p) {
    return le16(p + 2) << 16 | le16(p);
}

const char *wan_picture_kind_name(picture_kind kind) {
    static const char *const name[] = {"PNG", "JPEG", "WebP"};
    return name[kind];
}

/* -----------------------------------------------------------------------------------------------------------
 * PNG */

enum { PNG_SIGNATURE = 8, PNG_CHUNK = 12 /* length, type, checksum */ };

static wan_status png_chunk(const source *s, picture_header *h, const char *type,
                            const uint8_t *data, size_t size) {
    if (memcmp(type, "IHDR", 4) == 0) {
        if (size != 13)
            return wan_fail(s->err, WAN_E_IMAGE, "%s: its IHDR chunk has %zu bytes, not 13",
                            s->name, size);
        h->width = be32(data);
        h->height = be32(data + 4);
    } else if (memcmp(type, "eXIf", 4) == 0) {
        h->orientation = wan_exif_orientation(data, size);
    } else if (memcmp(type, "iCCP", 4) == 0) {
        h->icc = data;
        h->icc_size = size;
    }
    return WAN_OK;
}

static wan_status read_png(const source *s, picture_header *h) {
    bool pixels = false;
    for (size_t at = PNG_SIGNATURE; at < s->size;) {
        size_t left = s->size - at;
        if (left < PNG_CHUNK)
            return wan_fail(s->err, WAN_E_IMAGE,
                            "%s: cut short: a PNG chunk needs 12 bytes at %zu, %zu are there",
                            s->name, at, left);
        size_t size = be32(s->at + at);
        char type[5] = {0};
        memcpy(type, s->at + at + 4, 4);
        for (int i = 0; i < 4; i++)
            if ((type[i] | 32) < 'a' || (type[i] | 32) > 'z')
                return wan_fail(s->err, WAN_E_IMAGE, "%s: damaged: no PNG chunk at byte %zu",
                                s->name, at);
        if (size > left - PNG_CHUNK)
            return wan_fail(s->err, WAN_E_IMAGE,
                            "%s: cut short: its %s chunk says %zu bytes, %zu are there", s->name,
                            type, size, left - PNG_CHUNK);
        if (at == PNG_SIGNATURE && memcmp(type, "IHDR", 4) != 0)
            return wan_fail(s->err, WAN_E_IMAGE, "%s: damaged: begins with a %s chunk, not IHDR",
                            s->name, type);
        wan_status status = png_chunk(s, h, type, s->at + at + 8, size);
        if (status != WAN_OK)
            return status;
        pixels |= memcmp(type, "IDAT", 4) == 0;
        at += PNG_CHUNK + size;
        if (memcmp(type, "IEND", 4) == 0) {
            h->used = at;
            return pixels ? WAN_OK
                          : wan_fail(s->err, WAN_E_IMAGE, "%s: a PNG without pixels", s->name);
        }
    }
    return wan_fail(s->err, WAN_E_IMAGE,
                    "%s: cut short: ends after %zu bytes without PNG's last chunk", s->name,
                    s->size);
}

/* ----------------------------------------------------------------------------------------------------------
 * JPEG */

enum { SOI = 0xD8, EOI = 0xD9, SOS = 0xDA, TEM = 0x01, RST0 = 0xD0, RST7 = 0xD7 };

/* Sizes and kind of a frame; only what the decoder and the upsampler know: 8-bit baseline to
 * progressive Huffman. */
static wan_status jpeg_frame(const source *s, picture_header *h, int marker, const uint8_t *data,
                             size_t size) {
    if (size < 6 || size < 6 + 3 * (size_t)data[5])
        return wan_fail(s->err, WAN_E_IMAGE, "%s: damaged: its JPEG frame header has %zu bytes",
                        s->name, size);
    if (h->components)
        return wan_fail(s->err, WAN_E_IMAGE, "%s: damaged: a JPEG with two frame headers", s->name);
    if (marker > 0xC2 || data[0] != 8)
        return wan_fail(s->err, WAN_E_IMAGE,
                        "%s: a JPEG of kind SOF%d with %d bits a sample; SOF0, SOF1 and SOF2 with "
                        "8 can be read",
                        s->name, marker - 0xC0, data[0]);
    h->progressive = marker == 0xC2;
    h->height = be16(data + 1);
    h->width = be16(data + 3);
    h->components = data[5];
    if (h->components != 1 && h->components != 3 && h->components != 4)
        return wan_fail(s->err, WAN_E_IMAGE,
                        "%s: a JPEG with %d components; 1, 3 and 4 can be read", s->name,
                        h->components);
    return WAN_OK;
}

static wan_status jpeg_segment(const source *s, picture_header *h, int marker, const uint8_t *data,
                               size_t size) {
    bool frame =
        marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame)
        return jpeg_frame(s, h, marker, data, size);
    if (marker == 0xE1 && size > 6 && memcmp(data, "Exif\0", 6) == 0)
        h->orientation = wan_exif_orientation(data + 6, size - 6);
    if (marker == 0xE2 && size > 14 && memcmp(data, "ICC_PROFILE", 12) == 0 && !h->icc) {
        h->icc = data + 14;
        h->icc_size = size - 14;
    }
    if (marker == 0xEE && size >= 12 && memcmp(data, "Adobe", 5) == 0)
        h->adobe = true;
    return WAN_OK;
}

/* The next marker at or after `at`, past fill bytes; in_scan: past coded data.  s->size when there
 * is none. */
static size_t jpeg_marker(const source *s, size_t at, bool in_scan) {
    for (; at + 1 < s->size; at++) {
        if (s->at[at] != 0xFF)
            continue;
        int m = s->at[at + 1];
        if (m == 0xFF || m == 0 || (in_scan && m >= RST0 && m <= RST7))
            continue;
        return at;
    }
    return s->size;
}

static wan_status read_jpeg(const source *s, picture_header *h) {
    bool scan = false;
    for (size_t at = 2;;) {
        at = jpeg_marker(s, at, scan);
        if (at == s->size)
            return wan_fail(s->err, WAN_E_IMAGE,
                            "%s: cut short: ends after %zu bytes without JPEG's end mark", s->name,
                            s->size);
        int marker = s->at[at + 1];
        at += 2;
        if (marker == EOI) {
            h->used = at;
            if (!scan || !h->components)
                return wan_fail(s->err, WAN_E_IMAGE, "%s: a JPEG without pixels", s->name);
            return WAN_OK;
        }
        if (marker == TEM || marker == SOI || (marker >= RST0 && marker <= RST7))
            continue;
        size_t left = s->size - at, size = left >= 2 ? be16(s->at + at) : 0;
        if (size < 2 || size > left)
            return wan_fail(s->err, WAN_E_IMAGE,
                            "%s: cut short: JPEG segment %02X says %zu bytes, %zu are there",
                            s->name, marker, size, left);
        wan_status status = jpeg_segment(s, h, marker, s->at + at + 2, size - 2);
        if (status != WAN_OK)
            return status;
        scan |= marker == SOS;
        at += size;
    }
}

/* ----------------------------------------------------------------------------------------------------------
 * WebP */

static bool is_tag(const uint8_t *p, const char *tag) {
    return memcmp(p, tag, 4) == 0;
}

static wan_status webp_chunk(const source *s, picture_header *h, const uint8_t *chunk, size_t size,
                             bool *pixels) {
    const uint8_t *data = chunk + 8;
    if (is_tag(chunk, "ANIM") || is_tag(chunk, "ANMF"))
        return wan_fail(s->err, WAN_E_IMAGE,
                        "%s: an animated WebP; only still pictures can be read", s->name);
    if (is_tag(chunk, "EXIF")) {
        bool prefix = size > 6 && memcmp(data, "Exif\0", 6) == 0;
        h->orientation = wan_exif_orientation(data + (prefix ? 6 : 0), size - (prefix ? 6 : 0));
    } else if (is_tag(chunk, "ICCP")) {
        h->icc = data;
        h->icc_size = size;
    } else if (is_tag(chunk, "VP8X") && size >= 10) {
        h->width = 1 + (int64_t)le24(data + 4);
        h->height = 1 + (int64_t)le24(data + 7);
    } else if (is_tag(chunk, "VP8 ") || is_tag(chunk, "VP8L")) {
        bool lossy = chunk[3] == ' ';
        if (size < 10 || (lossy ? memcmp(data + 3, "\x9d\x01\x2a", 3) != 0 : data[0] != 0x2f))
            return wan_fail(s->err, WAN_E_IMAGE,
                            "%s: damaged: its %.4s chunk of %zu bytes holds no picture", s->name,
                            (const char *)chunk, size);
        int64_t w = lossy ? le16(data + 6) & 0x3fff : 1 + (le32(data + 1) & 0x3fff);
        int64_t ht = lossy ? le16(data + 8) & 0x3fff : 1 + (le32(data + 1) >> 14 & 0x3fff);
        if (h->width && (h->width != w || h->height != ht))
            return wan_fail(s->err, WAN_E_IMAGE,
                            "%s: lies: the WebP says %lldx%lld, its pixels are %lldx%lld", s->name,
                            (long long)h->width, (long long)h->height, (long long)w, (long long)ht);
        h->width = w;
        h->height = ht;
        *pixels = true;
    }
    return WAN_OK;
}

static wan_status read_webp(const source *s, picture_header *h) {
    size_t end = (size_t)le32(s->at + 4) + 8;
    bool pixels = false;
    if (end < 12) /* the loop below counts down from it */
        return wan_fail(s->err, WAN_E_IMAGE,
                        "%s: lies: the WebP says %zu bytes, its head alone has 12", s->name, end);
    if (end > s->size)
        return wan_fail(s->err, WAN_E_IMAGE,
                        "%s: cut short: the WebP says %zu bytes, %zu are there", s->name, end,
                        s->size);
    for (size_t at = 12; end - at >= 8;) {
        size_t size = le32(s->at + at + 4), left = end - at - 8;
        for (size_t k = at; k < at + 4; k++)
            if (s->at[k] < ' ' || s->at[k] > '~')
                return wan_fail(s->err, WAN_E_IMAGE, "%s: damaged: no WebP chunk at byte %zu",
                                s->name, at);
        if (size > left)
            return wan_fail(s->err, WAN_E_IMAGE,
                            "%s: lies: its %.4s chunk says %zu bytes, %zu are there", s->name,
                            (const char *)s->at + at, size, left);
        wan_status status = webp_chunk(s, h, s->at + at, size, &pixels);
        if (status != WAN_OK)
            return status;
        size += size & 1; /* chunks are padded to even lengths */
        at += 8 + (size < left ? size : left);
    }
    h->used = end;
    return pixels ? WAN_OK : wan_fail(s->err, WAN_E_IMAGE, "%s: a WebP without pixels", s->name);
}

/* ---------------------------------------------------------------------------------------------------
 * any of them */

/* Kinds that people may well try, for a clearer refusal. */
static const char *foreign_kind(const uint8_t *b, size_t size) {
    static const struct {
        size_t at;
        const char *magic, *name;
    } kind[] = {{0, "GIF8", "a GIF"},      {0, "BM", "a BMP"},         {0, "II*", "a TIFF"},
                {0, "MM", "a TIFF"},       {4, "ftypavif", "an AVIF"}, {4, "ftyphei", "a HEIC"},
                {4, "ftypmif1", "a HEIF"}, {4, "ftyp", "an MP4"},      {0, "\xff\x0a", "a JPEG XL"},
                {0, "%PDF", "a PDF"},      {0, "<svg", "an SVG"}};
    for (size_t i = 0; i < sizeof kind / sizeof kind[0]; i++) {
        size_t n = strlen(kind[i].magic);
        if (size >= kind[i].at + n && memcmp(b + kind[i].at, kind[i].magic, n) == 0)
            return kind[i].name;
    }
    return "none of these";
}

wan_status wan_picture_header(const uint8_t *bytes, size_t size, const char *name,
                              picture_header *h, error *err) {
    source s = {bytes, size, name, err};
    wan_status status;
    *h = (picture_header){.orientation = 1};
    if (size == 0)
        return wan_fail(err, WAN_E_IMAGE, "%s: is empty", name);
    if (size >= PNG_SIGNATURE && memcmp(bytes, "\x89PNG\r\n\x1a\n", PNG_SIGNATURE) == 0) {
        h->kind = PICTURE_PNG;
        status = read_png(&s, h);
    } else if (size >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) {
        h->kind = PICTURE_JPEG;
        status = read_jpeg(&s, h);
    } else if (size >= 12 && is_tag(bytes, "RIFF") && is_tag(bytes + 8, "WEBP")) {
        h->kind = PICTURE_WEBP;
        status = read_webp(&s, h);
    } else {
        return wan_fail(err, WAN_E_IMAGE, "%s: PNG, JPEG and WebP pictures can be read; this is %s",
                        name, foreign_kind(bytes, size));
    }
    if (status == WAN_OK && (h->width <= 0 || h->height <= 0))
        return wan_fail(err, WAN_E_IMAGE, "%s: this %s says it is %lldx%lld pixels", name,
                        wan_picture_kind_name(h->kind), (long long)h->width, (long long)h->height);
    return status;
}
