/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file cache.h
 * @brief The expert cache: a model whose experts take less memory than they need.
 *
 * A model loaded with emo_model_load_options.memory_budget holds what every token uses: embedding, attention, routers,
 * norms, head, shared and always-active experts. The other experts are read from the file when they are asked for, into
 * as many places as the budget has; where none is free, the policy says which expert goes. Results are bit for bit
 * those of a model without a budget. The experts of a pool or mask are read ahead by a thread of the library's own
 * while other layers compute. On a device that such a model is moved to the places are the device's memory, and the
 * cache begins empty; models on a device wait once a layer for the choice. emo_model_get_cache_stats() (model.h) tells
 * how it went.
 */
#ifndef EMO_CACHE_H
#define EMO_CACHE_H

#include <emo/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Which expert gives its place to another. */
typedef int32_t emo_cache_policy;
enum {
    EMO_CACHE_POOL = 0, /**< the one longest neither used nor in the pool or mask of a pass; among equals (a pool larger
                           than the cache) the one whose layer comes last. The default */
    EMO_CACHE_LRU = 1,  /**< the one longest not used */
    EMO_CACHE_LFU = 2,  /**< the one least often used; counts are halved from time to time */
    EMO_CACHE_HOST = 3  /**< the one that emo_cache_worth gives the least */
};

/** An expert in the cache, as a policy sees it. A pass is one forward run over a batch: a piece of a prompt, or one
 *  token of each sequence. */
typedef struct emo_cache_entry {
    int32_t layer;
    int32_t expert;
    int32_t layers_ahead; /**< layers until its own comes again: 1 the next one, all of them: the one under way; 0: that
                           one, and more of its rows are to come */
    int32_t reserved;     /**< 0 */
    uint64_t passes_unused;   /**< passes since one used it (or since it was read), 0: the one under way */
    uint64_t passes_unpooled; /**< passes since one had it in its pool or mask, UINT64_MAX: never */
    uint64_t steps_unused;    /**< layers of passes since one used it (or since it was read) */
    double uses;              /**< layers of passes that used it, halved from time to time */
} emo_cache_entry;

/** A policy of the host's. `worth` is called under a lock, from any thread, for every expert that might go; it must be
 *  quick and must not call the library. The least goes; NaN counts as least; ties: the first place. */
typedef struct emo_cache_worth {
    void *ctx;
    double (*worth)(void *ctx, const emo_cache_entry *entry);
} emo_cache_worth;

/** What a cache did since the model was loaded. All zero for a model without a budget. */
typedef struct emo_cache_stats {
    uint32_t struct_size;
    emo_cache_policy policy;
    uint64_t experts;      /**< that come and go */
    uint64_t capacity;     /**< how many of them there is room for */
    uint64_t present;      /**< how many are there now */
    uint64_t bytes;        /**< memory of the places */
    uint64_t hits;         /**< experts that a layer of a pass asked for and that were there */
    uint64_t misses;       /**< and that were not */
    uint64_t read_ahead;   /**< experts read before anything asked for them */
    uint64_t evictions;    /**< experts that gave their place to another */
    uint64_t bytes_read;   /**< of experts, from the source */
    uint64_t read_ns;      /**< time in reads, of all threads */
    uint64_t stall_ns;     /**< time that passes stood still for a read */
    uint64_t failed_reads; /**< reads that failed; those of the read-ahead are tried again when needed */
} emo_cache_stats;
#define EMO_CACHE_STATS_INIT                                                                                           \
    { sizeof(emo_cache_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#ifdef __cplusplus
}
#endif
#endif
