/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define ROWS_MAX 64
#define LONG_BASE 256 /* getopt's value of row i is LONG_BASE + i, above every letter */

typedef struct getopt_table {
    const param *row;
    size_t count;
    struct option name[ROWS_MAX + 1];
    char letters[2 * ROWS_MAX + 3];
} getopt_table;

static void fill(getopt_table *t, unsigned command) {
    t->row = wan_params_table(&t->count);
    size_t n = 0, l = 0;
    /* "+" is not wanted: options may follow operands; ":" tells a missing value from an unknown
     * option. */
    t->letters[l++] = ':';
    for (size_t i = 0; i < t->count && n < ROWS_MAX; i++) {
        const param *p = &t->row[i];
        if (!(p->commands & command))
            continue;
        int value = p->type == PARAM_FLAG ? no_argument : required_argument;
        t->name[n++] = (struct option){p->name, value, NULL, LONG_BASE + (int)i};
        if (p->letter)
            t->letters[l++] = p->letter;
        if (p->letter && value == required_argument)
            t->letters[l++] = ':';
    }
    t->name[n] = (struct option){0};
    t->letters[l] = '\0';
}

static const param *row_of(const getopt_table *t, unsigned command, int value) {
    if (value >= LONG_BASE && (size_t)(value - LONG_BASE) < t->count)
        return &t->row[value - LONG_BASE];
    for (size_t i = 0; i < t->count; i++)
        if (value && t->row[i].letter == value && t->row[i].commands & command)
            return &t->row[i];
    return NULL;
}

/* What getopt refused: `word` is the argument it stands in, optopt the row where it got that far.
 */
static wan_status refused(const getopt_table *t, unsigned command, const char *word, error *err) {
    const param *p = row_of(t, command, optopt);
    if (p && optopt >= LONG_BASE)
        return wan_fail(err, WAN_E_USAGE, "--%s takes no value", p->name);
    if (optopt)
        return wan_fail(err, WAN_E_USAGE, "unknown option -%c", optopt);
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    char meant[200] = "";
    size_t used = 0;
    for (size_t i = 0; i < t->count && used < sizeof meant; i++)
        if (t->row[i].commands & command && strncmp(t->row[i].name, name, strlen(name)) == 0)
            used += (size_t)snprintf(meant + used, sizeof meant - used, "%s--%s", used ? ", " : "",
                                     t->row[i].name);
    if (used)
        return wan_fail(err, WAN_E_USAGE, "--%s may mean %s", name, meant);
    p = wan_param_nearest(name, command);
    if (p)
        return wan_fail(err, WAN_E_USAGE, "unknown option --%s; did you mean --%s?", name, p->name);
    return wan_fail(err, WAN_E_USAGE, "unknown option --%s", name);
}

wan_status wan_options_parse(request *r, unsigned command, int argc, char **argv, int *operands,
                             error *err) {
    getopt_table t;
    fill(&t, command);
    optind = 1;
    opterr = 0;
    for (;;) {
        int value = getopt_long(argc, argv, t.letters, t.name, NULL);
        if (value == -1)
            break;
        const char *word = argv[optind - 1];
        if (value == '?')
            return refused(&t, command, word, err);
        const param *p = row_of(&t, command, value == ':' ? optopt : value);
        if (!p)
            return wan_fail(err, WAN_E_INTERNAL, "option %s is in no table", word);
        if (value == ':')
            return wan_fail(err, WAN_E_USAGE, "--%s needs a value: --%s %s", p->name, p->name,
                            p->metavar);
        if (wan_param_set(r, p, optarg, err) != WAN_OK)
            return WAN_E_USAGE;
    }
    *operands = optind;
    return WAN_OK;
}
