/* SPDX-License-Identifier: Apache-2.0 */
/* Pool policies as text: what is described is read back as the same policy, and what is no policy is refused. */
#include "moe/pool.h"
#include "support/support.h"

TEST_RUNTIME(1, EMO_ISA_AUTO)

/* The text of a policy, in room of exactly its size. */
static char *describe(const emo_pool_policy *policy) {
    emo_error err = EMO_ERROR_INIT;
    size_t size = 0;
    size_t again = 0;
    EXPECT_OK(emo_pool_policy_describe(policy, NULL, 0, &size, &err));
    char *text = malloc(size);
    assert_non_null(text);
    EXPECT_STATUS(emo_pool_policy_describe(policy, text, size - 1, &again, &err), EMO_E_LIMIT, "room");
    EXPECT_OK(emo_pool_policy_describe(policy, text, size, &again, &err));
    assert_int_equal(size, again);
    assert_int_equal(strlen(text) + 1, size);
    return text;
}

static void expect_same(const emo_pool_policy *a, const emo_pool_policy *b) {
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->scope, b->scope);
    assert_int_equal(a->min, b->min);
    assert_int_equal(a->max, b->max);
    assert_memory_equal(&a->mass, &b->mass, sizeof a->mass);
    assert_int_equal(a->decay_steps, b->decay_steps);
    assert_int_equal(a->forced, b->forced);
    assert_int_equal(a->eval_pool, b->eval_pool);
    assert_int_equal(a->table_layers, b->table_layers);
    assert_int_equal(a->table_documents, b->table_documents);
    if (a->table != NULL)
        assert_memory_equal(a->table, b->table,
                            (size_t)a->table_layers * (size_t)a->table_documents * sizeof *a->table);
}

static emo_pool_policy *make(int kind) {
    static const int32_t sizes[] = {5, 1, 1048576, 7, 2, 9};
    emo_error err = EMO_ERROR_INIT;
    emo_pool_policy *policy = NULL;
    switch (kind) {
    case 0:
        EXPECT_OK(emo_pool_policy_create_none(rt, &policy, &err));
        break;
    case 1:
        EXPECT_OK(emo_pool_policy_create_fixed(rt, 5, &policy, &err));
        break;
    case 2:
        EXPECT_OK(emo_pool_policy_create_uniform(rt, 2, 1048576, &policy, &err));
        break;
    case 3:
        EXPECT_OK(emo_pool_policy_create_mass(rt, 0.700000048f, 2, 9, &policy, &err));
        break;
    case 4:
        EXPECT_OK(emo_pool_policy_create_mass(rt, 1.17549435e-38f, 1, 1, &policy, &err));
        break;
    case 5:
        EXPECT_OK(emo_pool_policy_create_scheduled(rt, 3, INT64_MAX, &policy, &err));
        break;
    case 6:
        EXPECT_OK(emo_pool_policy_create_table(rt, 2, 3, sizes, &policy, &err));
        break;
    case 7:
        EXPECT_OK(emo_pool_policy_from_prompt(rt, 32, &policy, &err));
        break;
    default:
        break;
    }
    return policy;
}

static void every_policy_is_read_back(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    int count = 0;
    emo_pool_policy *policy = NULL;
    for (int kind = 0; (policy = make(kind)) != NULL; kind++) {
        emo_pool_policy_release(policy);
        for (int set = 0; set < 2 * 2 * 3; set++) {
            emo_pool_policy *back = NULL;
            policy = make(kind);
            EXPECT_OK(emo_pool_policy_set_forced(policy, set % 2 * 3, &err));
            EXPECT_OK(emo_pool_policy_set_eval_pool(policy, set / 2 % 2 * 7, &err));
            EXPECT_OK(emo_pool_policy_set_scope(policy, set / 4, &err));
            char *text = describe(policy);
            EXPECT_OK(emo_pool_policy_parse(rt, text, &back, &err));
            expect_same(policy, back);
            free(text);
            emo_pool_policy_release(back);
            emo_pool_policy_release(policy);
            count++;
        }
    }
    assert_int_equal(count, 8 * 12);
}

static void texts_are_short(void **state) {
    (void)state;
    static const char *const same[] = {"none",
                                       "fixed:5",
                                       "uniform:2:9",
                                       "mass:0.85:2:9",
                                       "scheduled:3:1000",
                                       "prompt:32",
                                       "table:1:2:4:5",
                                       "uniform:2:9,forced:1,eval:4,scope:row",
                                       "prompt:3,eval:2",
                                       "none,scope:prompt"};
    static const char *const other[][2] = {{"fixed:5,scope:prompt,forced:0", "prompt:5"},
                                           {"prompt:5,scope:document", "fixed:5"},
                                           {"fixed:5,eval:2,forced:1", "fixed:5,forced:1,eval:2"}};
    emo_error err = EMO_ERROR_INIT;
    for (size_t i = 0; i < sizeof same / sizeof same[0] + sizeof other / sizeof other[0]; i++) {
        size_t n = sizeof same / sizeof same[0];
        emo_pool_policy *policy = NULL;
        EXPECT_OK(emo_pool_policy_parse(rt, i < n ? same[i] : other[i - n][0], &policy, &err));
        char *text = describe(policy);
        assert_string_equal(text, i < n ? same[i] : other[i - n][1]);
        free(text);
        emo_pool_policy_release(policy);
    }
}

static void what_is_no_policy_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "fixed",
                                      "fixed:",
                                      "fixed:1.5",
                                      "uniform:3",
                                      "fixed:3x",
                                      "nonesuch",
                                      "none:1",
                                      "mass:1:2",
                                      "mass::1:2",
                                      "mass:-0.5:1:2",
                                      "fixed:+3",
                                      "fixed:-3",
                                      "fixed:3:4",
                                      "fixed:3,",
                                      ",forced:1",
                                      "fixed:3,forced",
                                      "fixed:3,forced:",
                                      "fixed:3,forced:-1",
                                      "fixed:3,forced:1,forced:1",
                                      "fixed:3,scope:all",
                                      "fixed:3,scope:",
                                      "fixed:3 ",
                                      "fixed:3,eval:2:3",
                                      "fixed:3,lr:1",
                                      "table",
                                      "table:1",
                                      "table:1:1",
                                      "table:1:1:",
                                      "table:2:2:1:1:1",
                                      "table:1:1:2:3",
                                      "table:0:1:2",
                                      "table:1:0:2",
                                      "table:9223372036854775807:2:1",
                                      "table:3037000500:3037000500:1",
                                      "table:1:1:x"};
    static const char *const range[] = {
        "uniform:9:2", "fixed:0",       "fixed:99999999999",      "mass:2:1:2",
        "mass:0:1:2",  "scheduled:3:0", "fixed:3,forced:1048577", "fixed:3,eval:99999999999",
        "table:1:1:0", "fixed:1048577"};
    emo_error err = EMO_ERROR_INIT;
    emo_pool_policy *policy = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (emo_pool_policy_parse(rt, bad[i], &policy, &err) != EMO_E_INVALID_ARGUMENT ||
            strstr(err.message, "uniform:MIN:MAX") == NULL)
            fail_msg("%s: %s", bad[i], err.message);
        assert_null(policy);
    }
    for (size_t i = 0; i < sizeof range / sizeof range[0]; i++) {
        if (emo_pool_policy_parse(rt, range[i], &policy, &err) != EMO_E_RANGE)
            fail_msg("%s: %s", range[i], err.message);
        assert_null(policy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_policy_is_read_back),
        cmocka_unit_test(texts_are_short),
        cmocka_unit_test(what_is_no_policy_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
