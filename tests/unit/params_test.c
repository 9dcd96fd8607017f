/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/params.h"

static request r;

static wan_status set(const char *name, const char *text, error *err) {
    const param *p = wan_param_find(name, FOR_ALL);
    assert_non_null(p);
    *err = (error){0};
    return wan_param_set(&r, p, text, err);
}

static void accept(const char *name, const char *text) {
    error err;
    if (set(name, text, &err) != WAN_OK)
        fail_msg("--%s %s: %s", name, text, err.message);
}

/* The sentence must name the option and the value. */
static void refuse(const char *name, const char *text) {
    error err;
    char option[64];
    snprintf(option, sizeof option, "--%s", name);
    if (set(name, text, &err) != WAN_E_USAGE)
        fail_msg("--%s \"%s\" was accepted", name, text);
    assert_int_equal(err.code, WAN_E_USAGE);
    assert_non_null(strstr(err.message, option));
    assert_non_null(strstr(err.message, text));
}

static int init(void **state) {
    (void)state;
    wan_request_init(&r);
    return 0;
}

static void test_numbers(void **state) {
    (void)state;
    accept("steps", "20");
    assert_int_equal(r.clip.steps, 20);
    accept("guidance", "2.5");
    assert_true(r.clip.guidance == 2.5);
    accept("shift", "1e1");
    assert_true(r.clip.shift == 10);
    static const char *const whole[] = {"0",
                                        "1001",
                                        "-1",
                                        "",
                                        " 3",
                                        "3 ",
                                        "+3",
                                        "0x10",
                                        "3.0",
                                        "2147483648",
                                        "99999999999999999999",
                                        "--4",
                                        "-"};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        refuse("steps", whole[i]);
    static const char *const real[] = {"-1",    "101",   "nan",  "inf", "",  "1,5",
                                       "0x1p3", "1e400", "1.5 ", "+1",  "e", "--1"};
    for (size_t i = 0; i < sizeof real / sizeof real[0]; i++)
        refuse("guidance", real[i]);
    refuse("shift", "0");
    assert_int_equal(r.clip.steps, 20);
}

static void test_seed(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t seed;
    } ok[] = {{"0", 0},
              {"42", 42},
              {"9223372036854775807", INT64_MAX},
              {"18446744073709551615", UINT64_MAX}};
    for (size_t i = 0; i < sizeof ok / sizeof ok[0]; i++) {
        accept("seed", ok[i].text);
        assert_true(r.seed_given && r.clip.seed == ok[i].seed);
    }
    accept("seed", "-1");
    assert_false(r.seed_given);
    static const char *const bad[] = {"18446744073709551616", "-2", "", "1.5", "0x1", " 1", "x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse("seed", bad[i]);
}

static void test_size_and_shape(void **state) {
    (void)state;
    accept("size", "832x480");
    assert_int_equal(r.clip.width, 832);
    assert_int_equal(r.clip.height, 480);
    static const char *const size[] = {"832",   "832x",     "x480",     "832X480", "832x480x3",
                                       "0x480", "832x-480", "99999x32", ""};
    for (size_t i = 0; i < sizeof size / sizeof size[0]; i++)
        refuse("size", size[i]);
    accept("shape", "16,9,4,6");
    assert_true(r.shape[0] == 16 && r.shape[1] == 9 && r.shape[2] == 4 && r.shape[3] == 6);
    static const char *const shape[] = {"16,9,4",
                                        "16,9,4,6,1",
                                        "16,9,4,0",
                                        "16,9,4,-1",
                                        "",
                                        ",,,",
                                        "1000000,1000000,1000000,1000000",
                                        "16, 9,4,6"};
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++)
        refuse("shape", shape[i]);
    assert_true(r.shape[3] == 6);
}

static void test_rate(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t num, den;
    } ok[] = {{"24", 24, 1},           {"24000/1001", 24000, 1001},
              {"23.976", 24000, 1001}, {"29.97", 30000, 1001},
              {"59.94", 60000, 1001},  {"12.5", 25, 2},
              {"0.5", 1, 2},           {"16/1", 16, 1},
              {"23.98", 1199, 50}};
    for (size_t i = 0; i < sizeof ok / sizeof ok[0]; i++) {
        accept("fps", ok[i].text);
        if (r.fps.num != ok[i].num || r.fps.den != ok[i].den)
            fail_msg("--fps %s is %lld/%lld", ok[i].text, (long long)r.fps.num,
                     (long long)r.fps.den);
    }
    static const char *const bad[] = {"0",    "-24", "24/0", "24/", "/24",    "24/-1",
                                      "1001", "0/1", "nan",  "",    "24/1/1", "99999999999/1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse("fps", bad[i]);
}

static void test_text(void **state) {
    (void)state;
    error err;
    accept("prompt", "");
    assert_string_equal(r.clip.prompt, "");
    accept("prompt", "-x --y");
    assert_string_equal(r.clip.prompt, "-x --y");
    assert_int_equal(set("output", "", &err), WAN_E_USAGE);
    assert_null(r.clip.negative);
    accept("negative", "");
    assert_string_equal(r.clip.negative, "");
    refuse("sampler", "unipc2");
    refuse("sampler", "");
    accept("sampler", "dpm++");
    assert_int_equal(r.clip.sampler, WAN_SAMPLER_DPMPP);
}

/* What a request says about itself sets another one to the same. */
static void test_round_trip(void **state) {
    (void)state;
    static const char *const given[][2] = {
        {"prompt", "a \"b\" 'c'"},
        {"negative", ""},
        {"size", "64x32"},
        {"frames", "5"},
        {"fps", "24000/1001"},
        {"steps", "7"},
        {"guidance", "0.1"},
        {"shift", "3.3333333333333335"},
        {"sampler", "turbo"},
        {"seed", "18446744073709551615"},
        {"model", "m"},
        {"threads", "3"},
        {"no-metadata", ""},
        {"crf", "0"},
        {"shape", "1,2,3,4"},
    };
    char buffer[PARAM_TEXT_MAX];
    size_t count, said = 0;
    const param *row = wan_params_table(&count);
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        const param *p = wan_param_find(given[i][0], FOR_ALL);
        assert_null(wan_param_text(&r, p, buffer));
        accept(given[i][0], given[i][1]);
        assert_string_equal(wan_param_text(&r, p, buffer), given[i][1]);
    }
    for (size_t i = 0; i < count; i++)
        said += wan_param_text(&r, &row[i], buffer) != NULL;
    assert_int_equal(said, sizeof given / sizeof given[0]);
}

/* Each row is complete, and neither name nor letter occurs twice in a command. */
static void test_table(void **state) {
    (void)state;
    size_t count;
    const param *row = wan_params_table(&count);
    for (size_t i = 0; i < count; i++) {
        assert_true(row[i].name[0] && row[i].help[0] && row[i].group[0] && row[i].commands);
        assert_int_equal(row[i].type == PARAM_FLAG, row[i].metavar == NULL);
        for (size_t j = 0; j < i; j++)
            if (row[i].commands & row[j].commands) {
                assert_string_not_equal(row[i].name, row[j].name);
                assert_true(!row[i].letter || row[i].letter != row[j].letter);
            }
    }
}

static void test_nearest(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"sed", "seed"},         {"step", "steps"},
                                           {"promt", "prompt"},     {"outptu", "output"},
                                           {"gidance", "guidance"}, {"SIZE", "size"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        assert_string_equal(wan_param_nearest(pairs[i][0], FOR_GENERATE)->name, pairs[i][1]);
    assert_null(wan_param_nearest("xyzzy-plugh", FOR_GENERATE));
    assert_null(
        wan_param_nearest("a-name-that-is-much-longer-than-any-option-there-is", FOR_GENERATE));
    assert_null(wan_param_find("shape", FOR_GENERATE));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_numbers, init),
        cmocka_unit_test_setup(test_seed, init),
        cmocka_unit_test_setup(test_size_and_shape, init),
        cmocka_unit_test_setup(test_rate, init),
        cmocka_unit_test_setup(test_text, init),
        cmocka_unit_test_setup(test_round_trip, init),
        cmocka_unit_test_setup(test_table, init),
        cmocka_unit_test_setup(test_nearest, init),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
