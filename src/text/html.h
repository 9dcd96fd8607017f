/* SPDX-License-Identifier: Apache-2.0 */
/* html.h - character references (&amp; &#233;) back to characters.
 * Two readers, because prompt cleaning uses two: HTML's own rule, and the cautious one of ftfy.  No
 * state. */
#ifndef WAN_TEXT_HTML_H
#define WAN_TEXT_HTML_H

#include "text/utf8.h"

/* HTML 5: the longest known name counts, the semicolon may be missing (&notit; is a "not" sign and
 * "it;"). */
void wan_html_unescape(text_out *out, const char *s, size_t n);

/* Only what ends in a semicolon; also names written in capitals that HTML does not know (&EACUTE;).
 */
void wan_html_unescape_cautious(text_out *out, const char *s, size_t n);

#endif
