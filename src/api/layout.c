/* SPDX-License-Identifier: Apache-2.0 */
/* The layout of every public struct (structs.def): a field that moves, or a struct that grows without a decision, does
 * not compile. */
#include <float.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include <emo/emo.h>
#include <emo/sys/bench.h>
#include <emo/sys/comm.h>

/* What the library takes for granted of machine and compiler. Weights and token files are used where they lie in the
 * mapped file, so the machine's byte order must be theirs; -ffast-math would break NaN, infinities and the promise of
 * equal bits. */
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || UINTPTR_MAX != UINT64_MAX || CHAR_BIT != 8
#error "libemo needs a 64-bit little-endian machine"
#endif
#if defined(__FAST_MATH__) || defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "libemo cannot be built with -ffast-math or -ffinite-math-only"
#endif
_Static_assert(FLT_MANT_DIG == 24 && FLT_MAX_EXP == 128 && DBL_MANT_DIG == 53, "floats are IEEE 754");

#define FIXED(type, size) _Static_assert(sizeof(type) == (size), #type ": its size is part of the ABI");
#define SIZED(type, size, ...) FIXED(type, size)
#define INITED(type, size, first, ...)                                                                                 \
    FIXED(type, size)                                                                                                  \
    _Static_assert(4 <= (first) && (first) <= (size), #type ": no struct shrinks");
#define FIELD(type, field, offset)                                                                                     \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field ": its offset is part of the ABI");
#include "api/structs.def"

typedef int emo__layout_is_checked; /* a translation unit needs a declaration */
