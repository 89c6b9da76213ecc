/* SPDX-License-Identifier: Apache-2.0 */
/* Option structs across the ABI: copy what the caller knows over the defaults, refuse what the library does not know.
 */
#ifndef EMO_SRC_BASE_OPTIONS_H
#define EMO_SRC_BASE_OPTIONS_H

#include <emo/base.h>

/* A caller from the future may have a larger struct; more than this is not a struct of ours. */
#define EMO__LARGEST_STRUCT 65536u

/* dst (dst_size bytes) holds the defaults and its struct_size; src is the caller's struct or NULL. `name` is the
 * struct's name for messages. */
EMO_MUST_CHECK emo_status emo__options_copy(void *dst, uint32_t dst_size, const void *src, const char *name,
                                            emo_error *err);

/* A reserved field of the struct `name`: EMO_E_RANGE unless it is 0, so that it can mean something later. */
EMO_MUST_CHECK emo_status emo__options_reserved(int64_t value, const char *name, emo_error *err);
/* A field that is a switch: EMO_E_RANGE by name unless it is 0 or 1. */
EMO_MUST_CHECK emo_status emo__option_flag(int32_t value, const char *name, emo_error *err);

/* Structs that a call fills in, as far as the caller knows them. EMO_E_INVALID_ARGUMENT unless `info` says its size. */
EMO_MUST_CHECK emo_status emo__info_check(const void *info, const char *name, emo_error *err);
/* Copies `full`, of full_size bytes; the caller's struct_size stays. */
void emo__info_give(void *info, const void *full, uint32_t full_size);

#endif
