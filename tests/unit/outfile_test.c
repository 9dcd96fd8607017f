/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "io/outfile.h"

static char folder[256];

static int setup(void **state) {
    (void)state;
    make_folder(folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static const char *in(const char *name) {
    static char path[4][1024];
    static int turn;
    char *at = path[turn++ % 4];
    snprintf(at, 1024, "%s/%s", folder, name);
    return at;
}

static void expect_content(const char *path, const char *text) {
    char got[64] = {0};
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(got, 1, sizeof got - 1, f);
    fclose(f);
    assert_int_equal(n, strlen(text));
    assert_string_equal(got, text);
}

static void appears_only_at_commit(void **state) {
    (void)state;
    error err = {0};
    make_file(folder, "a", "old", 3);
    mode_t before = umask(027);
    outfile *f = wan_outfile_open(in("a"), &err);
    umask(before);
    assert_non_null(f);
    assert_int_equal(wan_outfile_write(f, "new ....", 8, &err), WAN_OK);
    assert_int_equal(wan_outfile_size(f), 8);
    assert_int_equal(wan_outfile_patch(f, "text", 4, 4, &err), WAN_OK);
    assert_int_equal(wan_outfile_size(f), 8);
    expect_content(in("a"), "old");
    assert_int_equal(access(wan_outfile_temp(f), F_OK), 0);
    assert_int_equal(wan_outfile_commit(f, &err), WAN_OK);
    expect_content(in("a"), "new text");
    assert_int_equal(count_files(folder), 1);
    struct stat st;
    assert_int_equal(stat(in("a"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
}

static void abort_leaves_nothing(void **state) {
    (void)state;
    error err = {0};
    outfile *f = wan_outfile_open(in("a"), &err);
    assert_non_null(f);
    assert_int_equal(wan_outfile_write(f, "x", 1, &err), WAN_OK);
    wan_outfile_abort(f);
    assert_int_equal(count_files(folder), 0);
    wan_outfile_abort(NULL);
}

static void two_at_once(void **state) {
    (void)state;
    error err = {0};
    outfile *f = wan_outfile_open(in("a"), &err), *g = wan_outfile_open(in("a"), &err);
    assert_non_null(f);
    assert_non_null(g);
    assert_string_not_equal(wan_outfile_temp(f), wan_outfile_temp(g));
    assert_int_equal(wan_outfile_write(f, "f", 1, &err), WAN_OK);
    assert_int_equal(wan_outfile_write(g, "g", 1, &err), WAN_OK);
    assert_int_equal(wan_outfile_commit(g, &err), WAN_OK);
    assert_int_equal(wan_outfile_commit(f, &err), WAN_OK);
    expect_content(in("a"), "f");
    assert_int_equal(count_files(folder), 1);
}

static void follows_links(void **state) {
    (void)state;
    error err = {0};
    make_file(folder, "real", "old", 3);
    assert_int_equal(symlink("real", in("link")), 0);
    outfile *f = wan_outfile_open(in("link"), &err);
    assert_non_null(f);
    assert_int_equal(wan_outfile_write(f, "new", 3, &err), WAN_OK);
    assert_int_equal(wan_outfile_commit(f, &err), WAN_OK);
    expect_content(in("real"), "new");
    struct stat st;
    assert_int_equal(lstat(in("link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
}

static void refuses(const char *path, const char *why) {
    error err = {0};
    assert_null(wan_outfile_open(path, &err));
    expect_error(&err, WAN_E_OUTPUT, why);
    assert_non_null(strstr(err.message, path));
}

static void bad_places(void **state) {
    (void)state;
    assert_int_equal(mkdir(in("sub"), 0777), 0);
    assert_int_equal(mkfifo(in("pipe"), 0666), 0);
    assert_int_equal(symlink("nowhere", in("loose")), 0);
    refuses(in("missing/a"), "No such file");
    refuses(in("sub"), "folder");
    refuses(in("sub/"), "file name");
    refuses("", "file name");
    refuses(in("pipe"), "regular");
    refuses(in("loose"), "link");
    refuses("/dev/null", "regular");
    char name[400] = {0};
    memset(name, 'n', 300);
    refuses(in(name), "too long");
    assert_int_equal(count_files(folder), 3);
}

static void longest_name(void **state) {
    (void)state;
    error err = {0};
    char name[256] = {0};
    memset(name, 'n', 255);
    outfile *f = wan_outfile_open(in(name), &err);
    assert_non_null(f);
    assert_int_equal(wan_outfile_commit(f, &err), WAN_OK);
    assert_int_equal(access(in(name), F_OK), 0);
}

/* A file size limit stands for a full disk: the write fails in the middle. */
static void no_space(void **state) {
    (void)state;
    error err = {0};
    struct rlimit was, small;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = was;
    small.rlim_cur = 1000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    outfile *f = wan_outfile_open(in("big"), &err);
    assert_non_null(f);
    char zeros[4096] = {0};
    wan_status s = wan_outfile_write(f, zeros, sizeof zeros, &err);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_int_equal(s, WAN_E_SPACE);
    expect_error(&err, WAN_E_SPACE, "after 1000 bytes");
    wan_outfile_abort(f);
    assert_int_equal(count_files(folder), 0);
}

static void faults_by_number(void **state) {
    (void)state;
    outfile *f = wan_outfile_open(in("a"), NULL);
    assert_non_null(f);
    static const struct {
        int number;
        wan_status code;
        const char *part;
    } fault[] = {{ENOSPC, WAN_E_SPACE, "disk is full"},
                 {EDQUOT, WAN_E_SPACE, "quota"},
                 {EFBIG, WAN_E_SPACE, "largest"},
                 {EIO, WAN_E_OUTPUT, "Input/output"},
                 {0, WAN_E_OUTPUT, "unknown reason"}};
    for (size_t i = 0; i < sizeof fault / sizeof fault[0]; i++) {
        error err = {0};
        assert_int_equal(wan_outfile_fault(f, fault[i].number, &err), fault[i].code);
        expect_error(&err, fault[i].code, fault[i].part);
    }
    wan_outfile_abort(f);
}

static void commit_fails(void **state) {
    (void)state;
    error err = {0};
    assert_int_equal(mkdir(in("sub"), 0777), 0);
    outfile *f = wan_outfile_open(in("sub/a"), &err);
    assert_non_null(f);
    assert_int_equal(unlink(wan_outfile_temp(f)), 0);
    assert_int_equal(wan_outfile_commit(f, &err), WAN_E_OUTPUT);
    expect_error(&err, WAN_E_OUTPUT, "sub/a");
    assert_int_equal(count_files(in("sub")), 0);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(appears_only_at_commit),
        TEST(abort_leaves_nothing),
        TEST(two_at_once),
        TEST(follows_links),
        TEST(bad_places),
        TEST(longest_name),
        TEST(no_space),
        TEST(faults_by_number),
        TEST(commit_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
