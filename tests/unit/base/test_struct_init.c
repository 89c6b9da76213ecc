/* SPDX-License-Identifier: Apache-2.0 */
/* The defaults of every public struct by its name, in callers that know more or less of it than the library. */
#include "support/support.h"

#include <string.h>

#include <emo/emo.h>
#include <emo/sys/bench.h>
#include <emo/sys/comm.h>

#define SIZED(type, size, ...) static const type type##_defaults = __VA_ARGS__;
#include "api/structs.def"

/* Room for a struct and what lies behind it. */
#define ROOM 512
#define UNTOUCHED 0x5a

/* `object` must be what the INIT macro gives in `size` bytes, and behind them what it was. */
static void check(const unsigned char *object, size_t size, const void *defaults, size_t known) {
    unsigned char expected[ROOM];
    const uint32_t struct_size = (uint32_t)size;
    memset(expected, UNTOUCHED, sizeof expected);
    memset(expected, 0, size);
    memcpy(expected, defaults, size < known ? size : known);
    memcpy(expected, &struct_size, sizeof struct_size);
    assert_memory_equal(object, expected, sizeof expected);
}

static void try_sizes(const char *name, const void *defaults, size_t known) {
    const size_t sizes[] = {4, 8, known - 4, known, known + 1, known + 24};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char object[ROOM];
        memset(object, UNTOUCHED, sizeof object);
        assert_int_equal(emo_struct_init(name, object, sizes[i]), known);
        check(object, sizes[i], defaults, known);
    }
}

static void test_every_struct_in_every_size(void **state) {
    (void)state;
#define SIZED(type, size, ...) try_sizes(#type, &type##_defaults, sizeof(type));
#include "api/structs.def"
}

/* The name is a macro that gives the size of these headers, and a function that gives that of the first release. */
static void test_macro_and_function(void **state) {
    (void)state;
    union {
        unsigned char bytes[ROOM];
        uint64_t aligned;
    } room;
#define INITED(type, size, first, ...)                                                                                 \
    memset(&room, UNTOUCHED, sizeof room);                                                                             \
    type##_init((type *)(void *)&room);                                                                                \
    check(room.bytes, sizeof(type), &type##_defaults, sizeof(type));                                                   \
    memset(&room, UNTOUCHED, sizeof room);                                                                             \
    (type##_init)((type *)(void *)&room);                                                                              \
    check(room.bytes, first, &type##_defaults, sizeof(type));                                                          \
    (type##_init)(NULL);
#include "api/structs.def"
}

static void test_what_is_none_stays_untouched(void **state) {
    (void)state;
    unsigned char object[8], untouched[8];
    memset(object, UNTOUCHED, sizeof object);
    memset(untouched, UNTOUCHED, sizeof untouched);
    assert_int_equal(emo_struct_init(NULL, object, 8), 0);
    assert_int_equal(emo_struct_init("emo_nothing", object, 8), 0);
    assert_int_equal(emo_struct_init("emo_budget", object, 8), 0); /* does not begin with struct_size */
    assert_int_equal(emo_struct_init("emo_decoder_options", object, 3), 0);
    assert_int_equal(emo_struct_init("emo_decoder_options", object, 65537), 0);
    assert_int_equal(emo_struct_init("emo_decoder_options", NULL, 8), 0);
    assert_memory_equal(object, untouched, sizeof object);
}

/* A caller that knows less than the library gives options it accepts, and so does one that knows more. */
static void test_options_of_other_sizes_are_accepted(void **state) {
    (void)state;
    const size_t sizes[] = {12, sizeof(emo_runtime_options), sizeof(emo_runtime_options) + 40};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        union {
            emo_runtime_options options;
            unsigned char bytes[256];
        } room;
        memset(&room, UNTOUCHED, sizeof room);
        emo_runtime *rt = NULL;
        emo_error err = EMO_ERROR_INIT;
        assert_int_equal(emo_struct_init("emo_runtime_options", &room, sizes[i]), sizeof(emo_runtime_options));
        EXPECT_OK(emo_runtime_create(&room.options, &rt, &err));
        emo_runtime_release(rt);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_struct_in_every_size),
        cmocka_unit_test(test_macro_and_function),
        cmocka_unit_test(test_what_is_none_stays_untouched),
        cmocka_unit_test(test_options_of_other_sizes_are_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
