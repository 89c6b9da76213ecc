/* SPDX-License-Identifier: Apache-2.0 */
#include "io/names.h"

#include <string.h>

#include "base/status.h"

uint64_t emo__hash_bytes(uint64_t hash, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

void emo__name_index_init(emo__name_index *index, const emo__mem *mem) {
    memset(index, 0, sizeof *index);
    index->mem = mem;
}

void emo__name_index_free(emo__name_index *index) {
    if (index->mem != NULL)
        emo__free(index->mem, index->slots);
    index->slots = NULL;
    index->capacity = 0;
    index->count = 0;
}

/* The slot of the name, or the free one where it belongs. */
static emo__name_slot *locate(emo__name_slot *slots, size_t capacity, const char *name, uint64_t hash) {
    size_t at = (size_t)(hash ^ hash >> 32) & (capacity - 1);
    while (slots[at].name != NULL && (slots[at].hash != hash || strcmp(slots[at].name, name) != 0))
        at = (at + 1) & (capacity - 1);
    return &slots[at];
}

static emo_status widen(emo__name_index *index, emo_error *err) {
    size_t capacity = index->capacity < 16 ? 16 : index->capacity * 2;
    emo__name_slot *slots = emo__calloc(index->mem, capacity, sizeof *slots);
    if (slots == NULL)
        return emo__fail_memory(err, capacity * sizeof *slots);
    for (size_t i = 0; i < index->capacity; i++) {
        if (index->slots[i].name != NULL)
            *locate(slots, capacity, index->slots[i].name, index->slots[i].hash) = index->slots[i];
    }
    emo__free(index->mem, index->slots);
    index->slots = slots;
    index->capacity = capacity;
    return EMO_OK;
}

emo_status emo__name_index_add(emo__name_index *index, const char *name, uint32_t value, bool *fresh, emo_error *err) {
    if (index->count + 1 > index->capacity / 2) {
        emo_status status = widen(index, err);
        if (status != EMO_OK)
            return status;
    }
    uint64_t hash = emo__hash_bytes(EMO__HASH_START, name, strlen(name));
    emo__name_slot *slot = locate(index->slots, index->capacity, name, hash);
    *fresh = slot->name == NULL;
    if (*fresh) {
        slot->name = name;
        slot->hash = hash;
        slot->value = value;
        index->count++;
    }
    return EMO_OK;
}

bool emo__name_index_find(const emo__name_index *index, const char *name, uint32_t *value) {
    if (index->count == 0)
        return false;
    uint64_t hash = emo__hash_bytes(EMO__HASH_START, name, strlen(name));
    const emo__name_slot *slot = locate(index->slots, index->capacity, name, hash);
    if (slot->name == NULL)
        return false;
    *value = slot->value;
    return true;
}
