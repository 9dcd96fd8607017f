/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/help.h"

#include <string.h>

#define LINE 96 /* columns of a help text */
#define LEFT 29 /* where the words about an option begin */

/* Words of text from column `at` on, continued at column `left`. */
static void wrap(FILE *to, const char *text, int at, int left) {
    bool first = true;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (!first && at + 1 + n > LINE) {
            fprintf(to, "\n%*s", left, "");
            at = left;
            first = true;
        }
        at += fprintf(to, "%s%.*s", first ? "" : " ", n, text);
        first = false;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

static void print_option(FILE *to, const param *p) {
    char head[64], letter[8] = "";
    if (p->letter)
        snprintf(letter, sizeof letter, "-%c, ", p->letter);
    int n = snprintf(head, sizeof head, "  %4s--%s%s%s", letter, p->name, p->metavar ? " " : "",
                     p->metavar ? p->metavar : "");
    if (n + 2 > LEFT)
        fprintf(to, "%s\n%*s", head, LEFT, "");
    else
        fprintf(to, "%-*s", LEFT, head);
    wrap(to, p->help, LEFT, LEFT);
}

/* Calls print for the options of a command, and title before each group. */
static void each_option(FILE *to, unsigned commands, void (*title)(FILE *, const char *),
                        void (*print)(FILE *, const param *)) {
    size_t count;
    const param *row = wan_params_table(&count);
    const char *group = "";
    for (size_t i = 0; i < count; i++) {
        if (!(row[i].commands & commands))
            continue;
        if (strcmp(group, row[i].group) != 0)
            title(to, row[i].group);
        group = row[i].group;
        print(to, &row[i]);
    }
}

static void print_title(FILE *to, const char *group) {
    fprintf(to, "\n%s:\n", group);
}

void wan_help_overview(FILE *to) {
    size_t count;
    const command *c = wan_commands(&count);
    fputs("wan " WAN_VERSION " - video generation with the Wan models\n\n"
          "usage: wan COMMAND [OPTIONS]\n\n",
          to);
    for (size_t i = 0; i < count; i++)
        fprintf(to, "  %-10s %s\n", c[i].name, c[i].summary);
    fprintf(to, "  %-10s %s\n", "help",
            "print this, or the options of a command: wan help COMMAND");
    fprintf(to, "  %-10s %s\n", "--version", "print the version");
    fputs("\nA first clip, with the demo model that comes with wan:\n\n"
          "  wan generate -p \"a red star moving left on a blue background\" -o star.mp4\n",
          to);
}

void wan_help_command(FILE *to, const command *c) {
    fprintf(to, "usage: wan %s %s%s[OPTIONS]\n\n", c->name, c->usage, *c->usage ? " " : "");
    char summary[200];
    snprintf(summary, sizeof summary, "%s.", c->summary);
    if (summary[0] >= 'a' && summary[0] <= 'z')
        summary[0] = (char)(summary[0] - 'a' + 'A');
    wrap(to, summary, 0, 0);
    wrap(to, c->details, 0, 0);
    each_option(to, c->bit, print_title, print_option);
}

/* Text as troff must see it: hyphens that can be copied, no control lines. */
static void man_text(FILE *to, const char *text) {
    if (*text == '.' || *text == '\'')
        fputs("\\&", to);
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", to);
        else if (*text == '\\')
            fputs("\\e", to);
        else if (*text == '"')
            fputs("\\(dq", to);
        else
            fputc(*text, to);
    }
}

static void man_option(FILE *to, const param *p) {
    fputs(".TP\n", to);
    if (p->letter)
        fprintf(to, "\\fB\\-%c\\fR, ", p->letter);
    fputs("\\fB\\-\\-", to);
    man_text(to, p->name);
    fputs("\\fR", to);
    if (p->metavar)
        fprintf(to, " \\fI%s\\fR", p->metavar);
    fputc('\n', to);
    man_text(to, p->help);
    fputc('\n', to);
}

static void man_title(FILE *to, const char *group) {
    fprintf(to, ".SS %s\n", group);
}

static void man_command(FILE *to, const command *c) {
    fprintf(to, ".SH WAN %s\n", c->name);
    fprintf(to, ".B wan %s\n", c->name);
    man_text(to, c->usage);
    fprintf(to, "%s[OPTIONS]\n.PP\n", *c->usage ? " " : "");
    man_text(to, c->details);
    fputc('\n', to);
    each_option(to, c->bit, man_title, man_option);
}

static void man_statuses(FILE *to) {
    fputs(".SH EXIT STATUS\n", to);
    for (int s = WAN_OK; s <= WAN_E_CANCELLED; s++) {
        const char *name = wan_status_name((wan_status)s);
        if (strcmp(name, "unknown status") == 0)
            continue;
        fprintf(to, ".TP\n%d\n", s);
        man_text(to, name);
        fputc('\n', to);
    }
}

void wan_help_man(FILE *to) {
    size_t count;
    const command *c = wan_commands(&count);
    fputs(".TH WAN 1 \"\" \"wan " WAN_VERSION "\" \"User Commands\"\n"
          ".SH NAME\nwan \\- video generation with the Wan models\n"
          ".SH SYNOPSIS\n",
          to);
    for (size_t i = 0; i < count; i++) {
        fprintf(to, ".B wan %s\n", c[i].name);
        man_text(to, c[i].usage);
        fprintf(to, "%s[OPTIONS]\n.br\n", *c[i].usage ? " " : "");
    }
    fputs(".B wan help\n[COMMAND]\n"
          ".SH DESCRIPTION\n"
          "Makes video clips from words and pictures with the models of the Wan family, on this "
          "machine.\n"
          "Long options may be shortened as long as they stay unambiguous; an option given twice "
          "counts the second time.\n",
          to);
    for (size_t i = 0; i < count; i++)
        man_command(to, &c[i]);
    man_statuses(to);
    fputs(".SH EXAMPLES\n"
          ".TP\nA first clip with the demo model\n"
          "wan generate \\-p \\(dqa red star moving left on a blue background\\(dq \\-o star.mp4\n"
          ".TP\nWhat it will take\n"
          "wan generate \\-p \\(dqa red star\\(dq \\-\\-dry\\-run\n"
          ".TP\nThe command behind a clip\n"
          "wan inspect star.mp4\n",
          to);
}
