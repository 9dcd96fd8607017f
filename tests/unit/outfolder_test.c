/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include <sys/stat.h>

#include "io/outfolder.h"

static void appears_only_at_commit(void **state) {
    (void)state;
    char folder[256], path[512], place[512], inside[600];
    error err = {0};
    snprintf(path, sizeof path, "%s/new/", make_folder(folder)); /* folders may end in a slash */
    for (int committed = 0; committed < 2; committed++) {
        outfolder *f = wan_outfolder_open(path, &err);
        assert_non_null(f);
        assert_int_equal(wan_outfolder_place(f, "sub/x", place, sizeof place, &err), WAN_OK);
        assert_int_equal(wan_outfolder_place(f, "sub/y", inside, sizeof inside, &err), WAN_OK);
        FILE *x = fopen(place, "wb");
        assert_non_null(x);
        fclose(x);
        assert_int_not_equal(access(path, F_OK), 0);
        if (committed)
            assert_int_equal(wan_outfolder_commit(f, &err), WAN_OK);
        else
            wan_outfolder_abort(f);
        assert_int_equal(count_files(folder), committed);
    }
    snprintf(inside, sizeof inside, "%s/new/sub/x", folder);
    assert_int_equal(access(inside, F_OK), 0);
    assert_null(wan_outfolder_open(path, &err));
    expect_error(&err, WAN_E_OUTPUT, "not empty");
    assert_int_equal(access(inside, F_OK), 0);
    unlink(inside);
    snprintf(inside, sizeof inside, "%s/new/sub", folder);
    rmdir(inside);
    wan_outfolder_abort(wan_outfolder_open(path, &err)); /* an empty one may be filled */
    assert_int_equal(count_files(folder), 1);
    remove_folder(folder);
}

static void refused(void **state) {
    (void)state;
    char folder[256], path[512], deep[600];
    error err = {0};
    snprintf(path, sizeof path, "%s", make_file(make_folder(folder), "file", "x", 1));
    assert_null(wan_outfolder_open(path, &err));
    expect_error(&err, WAN_E_OUTPUT, "is no folder");
    err = (error){0};
    snprintf(deep, sizeof deep, "%s/absent/new", folder);
    assert_null(wan_outfolder_open(deep, &err));
    expect_error(&err, WAN_E_OUTPUT, "cannot make the folder");
    err = (error){0};
    assert_null(wan_outfolder_open("..", &err));
    expect_error(&err, WAN_E_OUTPUT, "needs a name");
    assert_int_equal(count_files(folder), 1);
    wan_outfolder_abort(NULL);
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appears_only_at_commit),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
