/* SPDX-License-Identifier: Apache-2.0 */
/* The public structs by name: their sizes, for bindings that check their own layouts at run time, and their defaults.
 */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <emo/emo.h>
#include <emo/sys/bench.h>
#include <emo/sys/comm.h>

#include "base/options.h"

#define SIZED(type, size, ...) static const type type##_defaults = __VA_ARGS__;
#include "api/structs.def"

static const struct row {
    const char *name;
    size_t size;
    const void *defaults; /* NULL: does not begin with struct_size */
} rows[] = {
#define FIXED(type, size) {#type, sizeof(type), NULL},
#define SIZED(type, size, ...) {#type, sizeof(type), &type##_defaults},
#include "api/structs.def"
};

static const struct row *find(const char *name) {
    for (size_t i = 0; name != NULL && i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

size_t emo_struct_size(const char *name) {
    const struct row *row = find(name);
    return row != NULL ? row->size : 0;
}

/* The first `size` bytes of the defaults, and 0 behind them. */
static void fill(void *object, size_t size, const void *defaults, size_t known) {
    const uint32_t struct_size = (uint32_t)size;
    if (size > known)
        memset((unsigned char *)object + known, 0, size - known);
    memcpy(object, defaults, size < known ? size : known);
    memcpy(object, &struct_size, sizeof struct_size);
}

size_t emo_struct_init(const char *name, void *object, size_t size) {
    const struct row *row = find(name);
    if (row == NULL || row->defaults == NULL || object == NULL || size < sizeof(uint32_t) || size > EMO__LARGEST_STRUCT)
        return 0;
    fill(object, size, row->defaults, row->size);
    return row->size;
}

/* In the headers these names are macros that give the caller's size. Here are the functions: programs call them that
 * were compiled before there were macros, or look them up by name, and have no more room than the first release asked
 * for. */
#define INITED(type, size, first, ...)                                                                                 \
    void(type##_init)(type * object) {                                                                                 \
        if (object != NULL)                                                                                            \
            fill(object, first, &type##_defaults, sizeof(type));                                                       \
    }
#include "api/structs.def"
