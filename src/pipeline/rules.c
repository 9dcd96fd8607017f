/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/rules.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "tensor/quantise.h"

#define FILE_MAX (1 << 20)

typedef struct rule {
    char *pattern; /* in `text` of rules */
    dtype type;
    bool used;
} rule;

struct rules {
    char *text;
    rule *item;
    size_t count;
};

bool wan_type_find(const char *name, dtype *type) {
    static const struct {
        const char *name;
        dtype type;
    } ours[] = {{"fp8", WAN_F8_E4M3}, {"int8", WAN_I8}};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (!strcasecmp(name, ours[i].name)) {
            *type = ours[i].type;
            return true;
        }
    for (int t = 0; t < WAN_DTYPES; t++)
        if (wan_can_quantise((dtype)t) && !strcasecmp(name, wan_dtype((dtype)t)->name)) {
            *type = (dtype)t;
            return true;
        }
    return false;
}

static char *read_file(const char *path, error *err) {
    FILE *f = fopen(path, "rb");
    char *text = f ? malloc(FILE_MAX + 1) : NULL;
    if (!f)
        wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
    else if (!text)
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to read it", path);
    size_t n = text ? fread(text, 1, FILE_MAX + 1, f) : 0;
    if (text && (n > FILE_MAX || memchr(text, 0, n) || ferror(f))) {
        wan_fail(err, WAN_E_FORMAT, "%s: is no text of at most %d bytes", path, FILE_MAX);
        free(text);
        text = NULL;
    }
    if (text)
        text[n] = '\0';
    if (f)
        fclose(f);
    return text;
}

static char *trim(char *s) {
    while (isspace((unsigned char)*s))
        s++;
    char *end = s + strlen(s);
    while (end > s && isspace((unsigned char)end[-1]))
        *--end = '\0';
    return s;
}

static wan_status read_rule(rules *r, char *line, const char *where, int number, error *err) {
    char *equals = strrchr(line, '=');
    char *pattern = line, *type = equals ? equals + 1 : NULL;
    if (equals) {
        *equals = '\0';
        type = trim(type);
        pattern = trim(pattern);
    }
    rule *grown = realloc(r->item, (r->count + 1) * sizeof *grown);
    if (!grown)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its rules", where);
    r->item = grown;
    rule *one = &r->item[r->count++];
    *one = (rule){pattern, WAN_DTYPES, false};
    if (!equals || !*pattern)
        return wan_fail(err, WAN_E_USAGE, "%s: rule %d is \"%.80s\"; it must be PATTERN=TYPE",
                        where, number, line);
    if (strcasecmp(type, "keep") && !wan_type_find(type, &one->type))
        return wan_fail(err, WAN_E_USAGE,
                        "%s: rule %d, type %.40s: there are keep, f32, f16, bf16, fp8, int8, "
                        "q8_0, q6_k, q5_k, q4_k, ...",
                        where, number, type);
    return WAN_OK;
}

rules *wan_rules_open(const char *text, error *err) {
    struct stat st;
    error local = {0};
    rules *r = calloc(1, sizeof *r);
    bool file = stat(text, &st) == 0 && S_ISREG(st.st_mode);
    const char *where = file ? text : "--recipe", *ends = file ? "\n" : ",\n";
    if (!file && !strchr(text, '='))
        wan_fail(&local, WAN_E_IO, "--recipe: there is no file %.200s, nor is it PATTERN=TYPE",
                 text);
    else if (r)
        r->text = file ? read_file(text, &local) : strdup(text);
    char *rest = r ? r->text : NULL, *line;
    for (int number = 1; rest && !local.code && (line = strsep(&rest, ends)); number++) {
        line = trim(line);
        if (*line && *line != '#')
            read_rule(r, line, where, number, &local);
    }
    if (!local.code && r && r->text)
        return r;
    wan_rules_close(r);
    if (local.code)
        wan_fail(err, local.code, "%s", local.message);
    else
        wan_fail(err, WAN_E_MEMORY, "no memory for a recipe");
    return NULL;
}

void wan_rules_close(rules *r) {
    if (!r)
        return;
    free(r->item);
    free(r->text);
    free(r);
}

bool wan_rules_find(rules *r, const char *name, dtype *type) {
    bool found = false;
    for (size_t i = 0; r && i < r->count; i++)
        if (fnmatch(r->item[i].pattern, name, 0) == 0) {
            r->item[i].used = found = true;
            *type = r->item[i].type;
        }
    return found;
}

const char *wan_rules_unused(const rules *r) {
    for (size_t i = 0; r && i < r->count; i++)
        if (!r->item[i].used)
            return r->item[i].pattern;
    return NULL;
}
