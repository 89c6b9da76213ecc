/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the block formats, for the files that read and make them. */
#ifndef EMO_SRC_TENSOR_QUANT_BLOCKS_H
#define EMO_SRC_TENSOR_QUANT_BLOCKS_H

#include <stdint.h>

enum {
    EMO__Q_SMALL = 32, /* elements of a q8_0 or q4_0 block, and of a q4_k group */
    EMO__Q8_0_BYTES = 34,
    EMO__Q4_0_BYTES = 18,
    EMO__Q4_K_BLOCK = 256,
    EMO__Q4_K_GROUPS = 8,
    EMO__Q4_K_BYTES = 144
};

/* The 6-bit scales s and offsets t of the eight groups. */
void emo__q4_k_unpack(const unsigned char packed[12], uint8_t s[8], uint8_t t[8]);

#endif
