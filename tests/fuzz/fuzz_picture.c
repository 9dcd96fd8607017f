/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a picture: the header reader on all of them, the decoder and our conversion on small ones. */
#include "fuzz.h"

#include "media/header.h"
#include "media/picture.h"

#define SMALL 4096 /* pixels; larger ones only slow the search */

static void expect_refusal(const error *err) {
    MUST(err->code == WAN_E_IMAGE);
    MUST(strncmp(err->message, "fuzz: ", 6) == 0 && err->message[6]);
    for (const char *c = err->message; *c; c++)
        MUST(*c >= ' ' && *c <= '~'); /* nothing of a stranger's bytes reaches the terminal */
}

static void expect_header(const picture_header *h, const uint8_t *data, size_t size) {
    MUST(h->width > 0 && h->height > 0 && h->orientation >= 1 && h->orientation <= 8);
    MUST(h->used > 0 && h->used <= size);
    if (h->icc)
        MUST(h->icc >= data && h->icc_size <= size && (size_t)(h->icc - data) <= size - h->icc_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    picture_header h;
    error err = {0}, again = {0};
    if (wan_picture_header(data, size, "fuzz", &h, &err) != WAN_OK) {
        expect_refusal(&err);
        return 0;
    }
    MUST(err.code == WAN_OK);
    expect_header(&h, data, size);
    if (h.width * h.height > SMALL)
        return 0;
    picture p;
    if (wan_picture_open_bytes(data, size, "fuzz", &p, &again) != WAN_OK) {
        expect_refusal(&again);
        MUST(!p.rgb);
        return 0;
    }
    bool turned = h.orientation >= 5;
    MUST(p.width == (turned ? h.height : h.width) && p.height == (turned ? h.width : h.height));
    size_t bytes = (size_t)p.width * (size_t)p.height * 3;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < bytes; i++)
        sum = (uint8_t)(sum + p.rgb[i]);
    MUST(p.peak >= bytes);
    wan_picture_close(&p);
    return 0;
}
