/* SPDX-License-Identifier: Apache-2.0 */
/* The checker of the hooked build; in the other builds these calls do nothing. */
#include "cudasim/internal.h"

#ifndef CUDASIM_HOOKS
namespace cudasim {
void check_access(const void *, size_t, Access, const void *) {}
void check_written(const void *, size_t) {}
void check_copied(void *, const void *, size_t) {}
void check_allocated(const void *, size_t, bool) {}
void check_async(void *, const void *, int, int, const void *) {}
void check_async_landed(void *, int) {}
void check_initialised(const void *, size_t, const char *) {}
} // namespace cudasim
#endif
