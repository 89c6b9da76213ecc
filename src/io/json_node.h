/* SPDX-License-Identifier: Apache-2.0 */
/* What a parsed document is made of; for json_parse.c and json.c alone. */
#ifndef EMO_SRC_IO_JSON_NODE_H
#define EMO_SRC_IO_JSON_NODE_H

#include "io/json.h"

/* Types that only these two files see: the table of the object whose members follow, and what is behind the root. */
enum { EMO__JSON_INDEX = 100, EMO__JSON_OWNER };

/* Objects of more members than this have a table. */
#define EMO__JSON_FEW 8

struct emo__json {
    union {
        int64_t integer; /* also of true (1) and false (0) */
        double real;
        const char *text; /* NUL behind it */
        int64_t children; /* of a container: the first child is so many nodes before it */
        uint32_t *slots;  /* of an index: member number + 1, 0 where free */
        const emo__mem *mem;
    } u;
    union {
        const char *key;         /* of a member, NUL behind it; of the owner: the block of strings */
        struct emo__json *first; /* of the root, which is no member: all nodes */
    };
    uint32_t count; /* members, elements, bytes of text, slots */
    uint32_t key_length;
    uint8_t type;
};

/* Where the search for a key begins; capacity is a power of two. */
uint32_t emo__json_slot(const char *key, size_t length, uint32_t capacity);

#endif
