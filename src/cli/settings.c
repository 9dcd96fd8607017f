/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report.h"

static json_t *value_of(const param *p, const request *r, const char *text) {
    if (p->type == PARAM_FLAG)
        return json_true();
    if (p->type == PARAM_SEED && r->clip.seed <= INT64_MAX)
        return json_integer((json_int_t)r->clip.seed);
    if (p->type == PARAM_INT)
        return json_integer(strtoll(text, NULL, 10));
    if (p->type == PARAM_REAL)
        return json_real(strtod(text, NULL));
    return wan_report_text(text);
}

json_t *wan_settings_json(const request *r) {
    size_t count;
    const param *row = wan_params_table(&count);
    json_t *all = json_object();
    for (size_t i = 0; all && i < count; i++) {
        char buffer[PARAM_TEXT_MAX];
        const char *text = row[i].repeats ? wan_param_text(r, &row[i], buffer) : NULL;
        if (text && json_object_set_new(all, row[i].name, value_of(&row[i], r, text)) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

char *wan_settings_text(const request *r) {
    json_t *all = wan_settings_json(r);
    if (all)
        json_object_set_new(all, "program", json_string("wan " WAN_VERSION));
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    return text;
}

static bool is_plain(const char *text) {
    return *text &&
           text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                             "_-./:,+=@%")] == '\0';
}

/* Control characters other than newline and tab, which could drive the terminal they are shown on.
 */
static bool is_control(const unsigned char *c) {
    return (*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7F ||
           (c[0] == 0xC2 && c[1] >= 0x80 && c[1] <= 0x9F);
}

static void quote(FILE *to, const char *text) {
    const unsigned char *c = (const unsigned char *)text;
    bool control = false;
    if (is_plain(text)) {
        fputs(text, to);
        return;
    }
    for (const unsigned char *p = c; *p; p++)
        control |= is_control(p);
    fputs(control ? "$'" : "'", to);
    for (; *c; c++) {
        if (control && is_control(c)) {
            fprintf(to, "\\%03o", *c);
            if (*c == 0xC2)
                fprintf(to, "\\%03o", *++c);
        } else if (*c == '\'') {
            fputs(control ? "\\'" : "'\\''", to);
        } else if (control && *c == '\\') {
            fputs("\\\\", to);
        } else {
            fputc(*c, to);
        }
    }
    fputc('\'', to);
}

static void add_option(FILE *to, const param *p, const char *text) {
    if (p->letter)
        fprintf(to, " -%c", p->letter);
    else
        fprintf(to, " --%s", p->name);
    if (p->type == PARAM_FLAG)
        return;
    fputc(' ', to);
    quote(to, text);
}

char *wan_settings_command(const request *r, const char *program, const char *output) {
    char *line = NULL;
    size_t size = 0, count;
    FILE *to = open_memstream(&line, &size);
    if (!to)
        return NULL;
    quote(to, program);
    fputs(" generate", to);
    const param *row = wan_params_table(&count);
    for (size_t i = 0; i < count; i++) {
        char buffer[PARAM_TEXT_MAX];
        const char *text = row[i].repeats ? wan_param_text(r, &row[i], buffer) : NULL;
        if (text)
            add_option(to, &row[i], text);
    }
    if (output) {
        fputs(" -o ", to);
        quote(to, output);
    }
    bool failed = ferror(to) != 0;
    if (fclose(to) != 0 || failed) {
        free(line);
        return NULL;
    }
    return line;
}

wan_status wan_settings_read(request *r, const json_t *settings, const char *name, error *err) {
    size_t count;
    const param *row = wan_params_table(&count);
    for (size_t i = 0; i < count; i++) {
        const json_t *v = row[i].repeats ? json_object_get(settings, row[i].name) : NULL;
        if (!v || json_is_false(v))
            continue;
        char number[64];
        const char *text = json_string_value(v);
        bool number_fits =
            row[i].type == PARAM_INT || row[i].type == PARAM_REAL || row[i].type == PARAM_SEED;
        if (json_is_integer(v))
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
        else if (json_is_real(v))
            snprintf(number, sizeof number, "%.17g", json_real_value(v));
        if (!text)
            text = json_is_number(v) && number_fits ? number : NULL;
        if (row[i].type == PARAM_FLAG)
            text = json_is_true(v) ? "" : NULL;
        error why = {0};
        if (!text || wan_param_set(r, &row[i], text, &why) != WAN_OK)
            return wan_fail(err, WAN_E_FORMAT, "%s: its setting \"%s\" is not one of wan: %.700s",
                            name, row[i].name, text ? why.message : "wrong kind of value");
    }
    return WAN_OK;
}
