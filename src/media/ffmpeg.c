/* SPDX-License-Identifier: Apache-2.0 */
#include "media/ffmpeg.h"

#include <libavutil/error.h>
#include <libavutil/log.h>
#include <stdio.h>

void wan_ffmpeg_quiet(void) {
    av_log_set_level(AV_LOG_QUIET); /* an atomic store of a constant: safe from any thread */
}

int wan_ffmpeg_open_nothing(AVFormatContext *s, AVIOContext **pb, const char *url, int flags,
                            AVDictionary **options) {
    (void)s;
    (void)pb;
    (void)url;
    (void)flags;
    (void)options;
    return AVERROR(EACCES);
}

const char *wan_ffmpeg_text(int code, char text[WAN_FFMPEG_TEXT]) {
    if (av_strerror(code, text, WAN_FFMPEG_TEXT) < 0)
        snprintf(text, WAN_FFMPEG_TEXT, "FFmpeg error %d", code);
    return text;
}
