/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file version.h
 * @brief The version of these headers and of the library that is linked.
 */
#ifndef EMO_VERSION_H
#define EMO_VERSION_H

#include <emo/base.h>

#define EMO_VERSION_MAJOR 0
#define EMO_VERSION_MINOR 1
#define EMO_VERSION_PATCH 0
#define EMO_VERSION_STRING "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/** The version of the linked library as major * 10000 + minor * 100 + patch. Never fails; any thread. */
EMO_API int32_t emo_version_number(void);

/** The version of the linked library, such as "0.1.0". Static storage; any thread. */
EMO_API const char *emo_version_string(void);

#ifdef __cplusplus
}
#endif
#endif
