/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

/* Sentences quote names from files; one of those must not be able to steer the terminal they end
 * on. */
static void make_plain(char *text) {
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
        else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
            p[0] = p[1] = '?';
}

wan_status wan_fail(error *err, wan_status code, const char *format, ...) {
    if (!err || err->code != WAN_OK)
        return code;
    err->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    make_plain(err->message);
    return code;
}

void wan_error_clear(error *err) {
    err->code = WAN_OK;
    err->message[0] = '\0';
}

const char *wan_status_name(wan_status code) {
    static const char *const name[] = {
        [WAN_OK] = "ok",
        [WAN_E_INTERNAL] = "internal error",
        [WAN_E_USAGE] = "bad parameter",
        [WAN_E_IO] = "cannot read",
        [WAN_E_FORMAT] = "damaged or unknown file",
        [WAN_E_SHAPE] = "wrong shape",
        [WAN_E_TYPE] = "unsupported tensor type",
        [WAN_E_PARTS] = "parts do not fit together",
        [WAN_E_IMAGE] = "bad picture",
        [WAN_E_TEXT] = "bad prompt",
        [WAN_E_OUTPUT] = "cannot write",
        [WAN_E_SPACE] = "no space left",
        [WAN_E_MEMORY] = "out of memory",
        [WAN_E_GRID] = "size or frame count off the grid",
        [WAN_E_DEVICE] = "device error",
        [WAN_E_SELFTEST] = "self-test failed",
    };
    if (code == WAN_E_CANCELLED)
        return "cancelled";
    if (code < 0 || (size_t)code >= sizeof name / sizeof name[0] || !name[code])
        return "unknown status";
    return name[code];
}
