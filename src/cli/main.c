/* SPDX-License-Identifier: Apache-2.0 */
/* wan: one command of commands.h; the exit status is its wan_status. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/interrupt.h"
#include "cli/options.h"

/* A file opened while 0, 1 or 2 is closed would become standard input, output or error. */
static void fill_standard_files(void) {
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

/* Errors of parsing are events too, so this cannot wait for the parser. */
static bool wants_json(int argc, char **argv) {
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
    return false;
}

static wan_status help(int argc, char **argv, error *err) {
    const char *about = argc > 2 ? argv[2] : NULL;
    const command *c = about ? wan_command_find(about) : NULL;
    if (about && strcmp(about, "--man") == 0)
        wan_help_man(stdout);
    else if (c)
        wan_help_command(stdout, c);
    else if (about)
        return wan_fail(err, WAN_E_USAGE, "there is no command \"%.60s\" to help with", about);
    else
        wan_help_overview(stdout);
    return WAN_OK;
}

static wan_status run_command(const command *c, int argc, char **argv, report *say, error *err) {
    invocation v = {.program = argv[0], .report = say};
    int first;
    wan_request_init(&v.r);
    /* The command's name takes the place of the program's, which getopt skips. */
    wan_status s = wan_options_parse(&v.r, c->bit, argc - 1, argv + 1, &first, err);
    if (v.r.help && s == WAN_OK) {
        wan_help_command(stdout, c);
        return WAN_OK;
    }
    if (s != WAN_OK)
        return s;
    say->quiet = v.r.quiet;
    say->json = v.r.json;
    v.operand = argv + 1 + first;
    v.operands = argc - 1 - first;
    if (v.operands > c->operands)
        return wan_fail(err, WAN_E_USAGE, "\"%.80s\" is not an option; usage: wan %s %s",
                        v.operand[c->operands], c->name, c->usage);
    if (v.operands < c->operands)
        return wan_fail(err, WAN_E_USAGE, "usage: wan %s %s", c->name, c->usage);
    return c->run(&v, err);
}

static wan_status run(int argc, char **argv, report *say, error *err) {
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        wan_help_overview(stderr);
        return wan_fail(err, WAN_E_USAGE, "a command is needed");
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("wan %s\n", wan_version());
        return WAN_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help(argc, argv, err);
    const command *c = wan_command_find(name);
    if (!c)
        return wan_fail(err, WAN_E_USAGE, "there is no command \"%.60s\"; wan help lists them",
                        name);
    return run_command(c, argc, argv, say, err);
}

int main(int argc, char **argv) {
    error err = {0};
    report say;
    fill_standard_files();
    wan_interrupt_install();
    wan_report_open(&say, wants_json(argc, argv), false);
    wan_status s = run(argc, argv, &say, &err);
    if (s != WAN_OK)
        wan_report_error(&say, &err);
    error late = {0};
    if (wan_report_close(&say, &late) != WAN_OK && s == WAN_OK) {
        s = late.code;
        wan_report_error(&say, &late);
    }
    return s;
}
