/* SPDX-License-Identifier: Apache-2.0 */
/* The steps are those of diffusers' prompt_clean with ftfy 6.3.1.  One step of ftfy is left out on
 * purpose: fix_encoding, which guesses that text was decoded with the wrong encoding ("cafÃ©") and
 * changes only such text. */
#include "text/clean.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/html.h"
#include "text/utf8.h"

#define ESCAPE 0x1B
/* ftfy repeats its steps until nothing changes.  Text needs two or three rounds; one built to need
 * thousands may not. */
#define ROUNDS_MAX 100

/* What Python calls white space in a str. */
static bool is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

/* Invisible, and not meant to be in text. */
static bool is_control(uint32_t c) {
    return c <= 0x08 || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
           (c >= 0x206A && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFC);
}

/* Letters of a Latin ligature or digraph, or NULL.  Not the general table of Unicode: æ, for one,
 * stays. */
static const char *ligature(uint32_t c) {
    static const char *const presentation[] = {"ff", "fi", "fl", "ffi", "ffl", "ſt", "st"};
    static const char *const digraph[] = {"DŽ", "Dž", "dž", "LJ", "Lj", "lj", "NJ", "Nj", "nj"};
    if (c >= 0xFB00 && c <= 0xFB06)
        return presentation[c - 0xFB00];
    if (c >= 0x01C4 && c <= 0x01CC)
        return digraph[c - 0x01C4];
    switch (c) {
    case 0x0132:
        return "IJ";
    case 0x0133:
        return "ij";
    case 0x0149:
        return "ʼn";
    case 0x01F1:
        return "DZ";
    case 0x01F2:
        return "Dz";
    case 0x01F3:
        return "dz";
    default:
        return NULL;
    }
}

/* One character through ftfy's table steps in their order: C1 controls, ligatures, width, quotes,
 * line breaks. */
static void put_fixed(text_out *out, uint32_t c) {
    c = wan_windows_1252(c);
    const char *letters = ligature(c);
    if (letters) {
        while (*letters)
            put_fixed(out, wan_utf8_read(&letters));
    } else if (c >= 0xFF01 && c <= 0xFFEF) { /* full-width Latin, half-width kana and hangul */
        utf8proc_int32_t usual[4];
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, usual, 4,
                                                     UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, NULL);
        for (utf8proc_ssize_t i = 0; i < n && i < 4; i++)
            wan_text_put_char(out, (uint32_t)usual[i]);
    } else if (c == 0x3000) {
        wan_text_put_char(out, ' ');
    } else if (c == 0x02BC || (c >= 0x2018 && c <= 0x201B)) {
        wan_text_put_char(out, '\'');
    } else if (c >= 0x201C && c <= 0x201F) {
        wan_text_put_char(out, '"');
    } else if (c == '\r' || c == 0x2028 || c == 0x2029) {
        wan_text_put_char(out, '\n');
    } else {
        wan_text_put_char(out, c);
    }
}

static void fix_characters(text_out *out, const char *s) {
    while (*s) {
        uint32_t c = wan_utf8_read(&s);
        put_fixed(out, c);
        if (c == '\r' && *s == '\n')
            s++;
    }
}

/* Where a terminal's colour code that begins at s ends; s if there is none. */
static const char *skip_escape(const char *s) {
    const char *at = s;
    if (at[0] != ESCAPE || at[1] != '[')
        return s;
    at += 2;
    for (;;) {
        const char *next = at;
        uint32_t c = wan_utf8_read(&next);
        if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
            return next;
        if (c != ';' && utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_ND)
            return s;
        at = next;
    }
}

static void drop_controls(text_out *out, const char *s) {
    while (*s) {
        const char *end = skip_escape(s);
        if (end != s) {
            s = end;
            continue;
        }
        uint32_t c = wan_utf8_read(&s);
        if (!is_control(c))
            wan_text_put_char(out, c);
    }
}

/* Letters and their combining marks become single characters (Unicode's form NFC). */
static void compose(text_out *out, const char *s) {
    utf8proc_uint8_t *composed = utf8proc_NFC((const utf8proc_uint8_t *)s);
    if (composed)
        wan_text_put(out, (const char *)composed, strlen((const char *)composed));
    else
        out->failed = true; /* s is valid, so it was memory */
    free(composed);
}

static void swap(text_out *a, text_out *b) {
    text_out t = *a;
    *a = *b;
    *b = t;
}

/* One line, with its line feed, through all steps until it stays as it is. */
static void fix_line(text_out *out, const char *s, size_t n, bool references) {
    text_out now = {0}, next = {0}, work = {0};
    wan_text_put(&now, s, n);
    for (int round = 0; round < ROUNDS_MAX; round++) {
        wan_text_reset(&next);
        wan_text_reset(&work);
        if (references)
            wan_html_unescape_cautious(&work, now.s, now.size);
        else
            wan_text_put(&work, now.s, now.size);
        fix_characters(&next, work.s ? work.s : "");
        wan_text_reset(&work);
        drop_controls(&work, next.s ? next.s : "");
        wan_text_reset(&next);
        compose(&next, work.s ? work.s : "");
        if (now.failed || next.failed || work.failed)
            break;
        bool same = next.size == now.size && memcmp(next.s, now.s, now.size) == 0;
        swap(&now, &next);
        if (same)
            break;
    }
    out->failed |= now.failed || next.failed || work.failed;
    if (!out->failed)
        wan_text_put(out, now.s, now.size);
    free(now.s);
    free(next.s);
    free(work.s);
}

/* A line with "<" is taken for real HTML: from there on references stay, for the plain HTML rule to
 * read. */
static void fix_lines(text_out *out, const char *s) {
    bool references = true;
    while (*s) {
        const char *feed = strchr(s, '\n');
        size_t n = feed ? (size_t)(feed - s) + 1 : strlen(s);
        references = references && !memchr(s, '<', n);
        fix_line(out, s, n, references);
        s += n;
    }
}

/* Each run of white space becomes one space; none is left at the ends. */
static void collapse_spaces(text_out *out, const char *s) {
    bool gap = false;
    wan_text_put(out, "", 0);
    while (*s) {
        uint32_t c = wan_utf8_read(&s);
        if (is_space(c)) {
            gap = out->size > 0;
            continue;
        }
        if (gap)
            wan_text_put(out, " ", 1);
        gap = false;
        wan_text_put_char(out, c);
    }
}

char *wan_prompt_clean(const char *prompt, error *err) {
    size_t n = strlen(prompt), bad = wan_utf8_check(prompt, n);
    if (bad < n) {
        wan_fail(err, WAN_E_TEXT, "the prompt is not UTF-8: byte 0x%02X at offset %zu of %zu",
                 (unsigned char)prompt[bad], bad, n);
        return NULL;
    }
    text_out fixed = {0}, once = {0}, twice = {0}, clean = {0};
    wan_text_put(&fixed, "", 0);
    wan_text_put(&once, "", 0);
    wan_text_put(&twice, "", 0);
    fix_lines(&fixed, prompt);
    if (!fixed.failed)
        wan_html_unescape(&once, fixed.s, fixed.size);
    if (!once.failed)
        wan_html_unescape(&twice, once.s, once.size);
    if (!twice.failed)
        collapse_spaces(&clean, twice.s);
    bool failed = fixed.failed || once.failed || twice.failed || clean.failed;
    free(fixed.s);
    free(once.s);
    free(twice.s);
    if (failed) {
        free(clean.s);
        wan_fail(err, WAN_E_MEMORY, "no memory to clean a prompt of %zu bytes", n);
        return NULL;
    }
    return clean.s;
}
