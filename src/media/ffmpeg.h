/* SPDX-License-Identifier: Apache-2.0 */
/* ffmpeg.h - small things every user of FFmpeg's libraries needs. */
#ifndef WAN_MEDIA_FFMPEG_H
#define WAN_MEDIA_FFMPEG_H

#include <libavformat/avformat.h>

#define WAN_FFMPEG_TEXT 128

/* FFmpeg prints on stderr by default; we say things ourselves.  To be called before its other
 * calls. */
void wan_ffmpeg_quiet(void);

/* For AVFormatContext.io_open: some files name others to read on from; ours do not, and a
 * stranger's shall not. */
int wan_ffmpeg_open_nothing(AVFormatContext *s, AVIOContext **pb, const char *url, int flags,
                            AVDictionary **options);

/* What an FFmpeg error code means. */
const char *wan_ffmpeg_text(int code, char text[WAN_FFMPEG_TEXT]);

#endif
