/* SPDX-License-Identifier: Apache-2.0 */
#include "media/pair.h"

#include <inttypes.h>
#include <stdlib.h>

#include "media/quality.h"

void wan_pair_close(pair *p) {
    wan_frames_close(p->a);
    wan_frames_close(p->b);
    free(p->rgb_a);
    free(p->rgb_b);
}

static wan_status no_memory(const pair *p, error *err) {
    return wan_fail(err, WAN_E_MEMORY, "no memory to compare %s with %s", p->name_a, p->name_b);
}

static wan_status check_sizes(pair *p, error *err) {
    frames_info a = wan_frames_info(p->a), b = wan_frames_info(p->b);
    if (a.width != b.width || a.height != b.height)
        return wan_fail(err, WAN_E_SHAPE,
                        "%s is %dx%d, %s is %dx%d; only clips of one size can be "
                        "compared",
                        p->name_a, a.width, a.height, p->name_b, b.width, b.height);
    if (a.count && b.count && a.count != b.count)
        return wan_fail(err, WAN_E_SHAPE, "%s has %" PRId64 " frames, %s has %" PRId64, p->name_a,
                        a.count, p->name_b, b.count);
    if (a.width < WAN_SSIM_WINDOW || a.height < WAN_SSIM_WINDOW)
        return wan_fail(err, WAN_E_SHAPE, "%s is %dx%d; SSIM needs at least %dx%d", p->name_a,
                        a.width, a.height, WAN_SSIM_WINDOW, WAN_SSIM_WINDOW);
    p->width = a.width;
    p->height = a.height;
    return WAN_OK;
}

wan_status wan_pair_open(pair *p, const char *a, const char *b, compare_stop stop, error *err) {
    error own = {0}; /* err may be NULL */
    *p = (pair){.name_a = a, .name_b = b, .stop = stop};
    p->a = wan_frames_open(a, &own);
    p->b = p->a ? wan_frames_open(b, &own) : NULL;
    if (!p->b)
        return wan_fail(err, own.code, "%s", own.message);
    wan_status status = check_sizes(p, err);
    if (status != WAN_OK)
        return status;
    size_t bytes = (size_t)p->width * (size_t)p->height * 3;
    p->rgb_a = malloc(bytes);
    p->rgb_b = malloc(bytes);
    return p->rgb_a && p->rgb_b ? WAN_OK : no_memory(p, err);
}

/* Reads s to its end and says that one clip had `done` frames and the other, s, more. */
static wan_status counts_differ(pair *p, bool a_is_longer, int64_t done, error *err) {
    bool more = true;
    int64_t total = done + 1;
    while (more) {
        wan_status status = a_is_longer ? wan_frames_next(p->a, p->rgb_a, &more, err)
                                        : wan_frames_next(p->b, p->rgb_b, &more, err);
        if (status != WAN_OK)
            return status;
        total += more;
    }
    return wan_fail(err, WAN_E_SHAPE, "%s has %" PRId64 " frames, %s has %" PRId64, p->name_a,
                    a_is_longer ? total : done, p->name_b, a_is_longer ? done : total);
}

wan_status wan_pair_next(pair *p, int64_t done, bool *more, error *err) {
    bool more_b = false;
    if (p->stop && p->stop(NULL))
        return wan_fail(err, WAN_E_CANCELLED, "stopped");
    wan_status status = wan_frames_next(p->a, p->rgb_a, more, err);
    if (status == WAN_OK)
        status = wan_frames_next(p->b, p->rgb_b, &more_b, err);
    if (status == WAN_OK && *more != more_b)
        status = counts_differ(p, *more, done, err);
    return status;
}
