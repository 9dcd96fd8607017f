/* SPDX-License-Identifier: Apache-2.0 */
#include "text/html.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/entities.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define REPLACEMENT 0xFFFD
#define NOTHING UINT32_MAX /* a reference that stands for no character at all */
#define CAUTIOUS_MAX 24    /* letters and digits of a reference, at most, for the cautious reader */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_upper(char c) {
    return c >= 'A' && c <= 'Z';
}

static bool is_name(char c) {
    return is_digit(c) || is_upper(c) || (c >= 'a' && c <= 'z');
}

static int hex_value(char c) {
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

typedef struct key {
    const char *s;
    size_t n;
} key;

static int compare(const void *a, const void *b) {
    const key *k = a;
    const entity *e = b;
    int order = strncmp(k->s, e->name, k->n);
    return order ? order : e->name[k->n] ? -1 : 0;
}

/* The entity whose whole name is s[0..n), or NULL. */
static const entity *find(const char *s, size_t n) {
    if (n > ENTITY_NAME_MAX)
        return NULL;
    return bsearch(&(key){s, n}, entities, COUNT(entities), sizeof *entities, compare);
}

/* The entity with the longest name that s[0..n) begins with. */
static const entity *find_longest(const char *s, size_t n) {
    size_t length = 0;
    while (length < n && length < ENTITY_NAME_MAX && is_name(s[length]))
        length++;
    if (length < n && length < ENTITY_NAME_MAX && s[length] == ';')
        length++;
    const entity *e = NULL;
    for (; !e && length >= 2; length--)
        e = find(s, length);
    return e;
}

/* What browsers make of a numeric reference: Windows-1252 for the C1 range, nothing for most
 * controls. */
static uint32_t from_number(uint32_t number) {
    if (number >= 0x80 && number <= 0x9F)
        return wan_windows_1252(number);
    if (number == 0 || (number >= 0xD800 && number <= 0xDFFF) || number > 0x10FFFF)
        return REPLACEMENT;
    bool space = number == '\t' || number == '\n' || number == '\f' || number == '\r';
    if ((number < 0x20 && !space) || number == 0x7F || (number >= 0xFDD0 && number <= 0xFDEF) ||
        (number & 0xFFFE) == 0xFFFE)
        return NOTHING;
    return number;
}

/* Reads "#123" or "#x7B" at s, without a semicolon.  Returns the bytes it takes, 0 if it is no
 * number. */
static size_t read_number(const char *s, size_t n, uint32_t *number) {
    bool hex = n > 1 && (s[1] == 'x' || s[1] == 'X');
    size_t begin = hex ? 2 : 1, at = begin;
    *number = 0;
    for (; at < n && (hex ? hex_value(s[at]) >= 0 : is_digit(s[at])); at++) {
        if (*number <= 0x10FFFF) /* larger stays larger */
            *number = *number * (hex ? 16 : 10) + (uint32_t)hex_value(s[at]);
    }
    return at > begin ? at : 0;
}

/* Copies text up to an ampersand and steps over it.  False: there is none, all is copied. */
static bool copy_plain(text_out *out, const char *s, size_t n, size_t *at) {
    const char *found = memchr(s + *at, '&', n - *at);
    size_t plain = found ? (size_t)(found - s) - *at : n - *at;
    wan_text_put(out, s + *at, plain);
    *at += plain + (found != NULL);
    return found != NULL;
}

void wan_html_unescape(text_out *out, const char *s, size_t n) {
    size_t at = 0;
    while (copy_plain(out, s, n, &at)) {
        const char *ref = s + at;
        size_t left = n - at;
        if (left && ref[0] == '#') {
            uint32_t number;
            size_t taken = read_number(ref, left, &number);
            uint32_t code = from_number(number);
            if (taken == 0)
                wan_text_put(out, "&", 1);
            else if (code != NOTHING)
                wan_text_put_char(out, code);
            at += taken;
            at += taken && taken < left && ref[taken] == ';';
            continue;
        }
        const entity *e = find_longest(ref, left);
        wan_text_put(out, e ? e->value : "&", e ? strlen(e->value) : 1);
        at += e ? strlen(e->name) : 0;
    }
}

/* Capital letters of a value; where Unicode needs two for one, they are spelled out. */
static void put_upper(text_out *out, const char *value) {
    static const struct {
        uint32_t code;
        const char *upper;
    } longer[] = {{0x00DF, "SS"}, {0x0149, "\312\274N"}, {0xFB00, "FF"}, {0xFB01, "FI"},
                  {0xFB02, "FL"}, {0xFB03, "FFI"},       {0xFB04, "FFL"}};
    while (*value) {
        uint32_t code = wan_utf8_read(&value);
        const char *upper = NULL;
        for (size_t i = 0; i < COUNT(longer); i++)
            upper = longer[i].code == code ? longer[i].upper : upper;
        if (upper)
            wan_text_put(out, upper, strlen(upper));
        else
            wan_text_put_char(out, (uint32_t)utf8proc_toupper((utf8proc_int32_t)code));
    }
}

/* "EACUTE;": a known name in capitals that HTML's own rule makes nothing of. */
static const entity *find_shouted(const char *s, size_t n) {
    char lower[CAUTIOUS_MAX + 2];
    if (find_longest(s, n))
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (s[i] != ';' && !is_digit(s[i]) && !is_upper(s[i]))
            return NULL;
        lower[i] = (char)(is_upper(s[i]) ? s[i] - 'A' + 'a' : s[i]);
    }
    return find(lower, n);
}

/* The reference s[0..n), which ends in a semicolon.  False: it is none, and stays as it is. */
static bool put_cautious(text_out *out, const char *s, size_t n) {
    if (s[0] == '#') {
        uint32_t number;
        if (read_number(s, n, &number) != n - 1)
            return false;
        uint32_t code = from_number(number);
        if (code == ';')
            return false; /* ftfy takes a semicolon in the result for one that was not consumed */
        if (code != NOTHING)
            wan_text_put_char(out, code);
        return true;
    }
    const entity *e = find(s, n);
    if (e) {
        wan_text_put(out, e->value, strlen(e->value));
        return true;
    }
    e = find_shouted(s, n);
    if (e)
        put_upper(out, e->value);
    return e != NULL;
}

void wan_html_unescape_cautious(text_out *out, const char *s, size_t n) {
    size_t at = 0;
    while (copy_plain(out, s, n, &at)) {
        const char *ref = s + at;
        size_t left = n - at, first = left && ref[0] == '#', length = first;
        while (length < left && length - first < CAUTIOUS_MAX && is_name(ref[length]))
            length++;
        bool closed = length > first && length < left && ref[length] == ';';
        if (closed && put_cautious(out, ref, length + 1))
            at += length + 1;
        else
            wan_text_put(out, "&", 1);
    }
}
