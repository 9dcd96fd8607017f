/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a clip: told by their beginning, opened, and small ones read to the end. */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "media/frames.h"

#define SMALL 16384 /* pixels; larger frames only slow the search */
#define ENOUGH 64   /* frames */

static char name[64];

static void expect_refusal(const error *err, wan_status status) {
    MUST(status != WAN_OK && err->code == status);
    MUST(status != WAN_E_INTERNAL && status != WAN_E_USAGE);
    MUST(err->message[0]);
}

static void read_all(frame_source *s, frames_info info) {
    size_t bytes = (size_t)info.width * (size_t)info.height * 3;
    uint8_t *rgb = malloc(bytes);
    MUST(rgb);
    int64_t count = 0;
    for (bool more = true; more && count < ENOUGH;) {
        error err = {0};
        wan_status status = wan_frames_next(s, rgb, &more, &err);
        if (status != WAN_OK) {
            expect_refusal(&err, status);
            free(rgb);
            return;
        }
        volatile uint8_t sum = 0;
        for (size_t i = 0; more && i < bytes; i++)
            sum = (uint8_t)(sum + rgb[i]);
        count += more;
        MUST(more || (count > 0 && (!info.count || count == info.count)));
    }
    free(rgb);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    error err = {0};
    frame_source *s = wan_frames_open(name, &err);
    if (s) {
        frames_info info = wan_frames_info(s);
        MUST(err.code == WAN_OK && info.width > 0 && info.height > 0 && info.count >= 0);
        MUST(info.count <= WAN_FRAMES_MAX);
        if ((int64_t)info.width * info.height <= SMALL)
            read_all(s, info);
    } else {
        expect_refusal(&err, err.code);
    }
    wan_frames_close(s);
    close(fd);
    return 0;
}
