/* SPDX-License-Identifier: Apache-2.0 */
#include "base/options.h"

#include <string.h>

#include "base/status.h"

emo_status emo__options_copy(void *dst, uint32_t dst_size, const void *src, const char *name, emo_error *err) {
    if (src == NULL)
        return EMO_OK;
    uint32_t size;
    memcpy(&size, src, sizeof size);
    if (size < sizeof size || size > EMO__LARGEST_STRUCT)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s.struct_size is %u; start from the INIT macro of the struct",
                         name, (unsigned)size);
    const unsigned char *bytes = src;
    for (uint32_t i = dst_size; i < size; i++) {
        if (bytes[i] != 0)
            return emo__fail(err, EMO_E_UNSUPPORTED,
                             "%s has a field at offset %u that this version of the library does not know", name,
                             (unsigned)i);
    }
    memcpy(dst, src, size < dst_size ? size : dst_size);
    memcpy(dst, &dst_size, sizeof dst_size);
    return EMO_OK;
}

emo_status emo__options_reserved(int64_t value, const char *name, emo_error *err) {
    if (value != 0)
        return emo__fail(err, EMO_E_RANGE, "%s.reserved is %lld; it must be 0", name, (long long)value);
    return EMO_OK;
}

emo_status emo__option_flag(int32_t value, const char *name, emo_error *err) {
    return value == 0 || value == 1 ? EMO_OK
                                    : emo__fail(err, EMO_E_RANGE, "%s is %d; it must be 0 or 1", name, (int)value);
}

emo_status emo__info_check(const void *info, const char *name, emo_error *err) {
    uint32_t size;
    memcpy(&size, info, sizeof size);
    if (size < sizeof size)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s.struct_size is %u; start from the INIT macro of the struct",
                         name, (unsigned)size);
    return EMO_OK;
}

void emo__info_give(void *info, const void *full, uint32_t full_size) {
    uint32_t size;
    memcpy(&size, info, sizeof size);
    memcpy(info, full, size < full_size ? size : full_size);
    memcpy(info, &size, sizeof size);
}
