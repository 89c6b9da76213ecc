/* SPDX-License-Identifier: Apache-2.0 */
#include <emo/version.h>

int32_t emo_version_number(void) { return EMO_VERSION_MAJOR * 10000 + EMO_VERSION_MINOR * 100 + EMO_VERSION_PATCH; }

const char *emo_version_string(void) { return EMO_VERSION_STRING; }
