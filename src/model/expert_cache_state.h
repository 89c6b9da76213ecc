/* SPDX-License-Identifier: Apache-2.0 */
/* The expert cache as its own files see it. */
#ifndef EMO_SRC_MODEL_EXPERT_CACHE_STATE_H
#define EMO_SRC_MODEL_EXPERT_CACHE_STATE_H

#include <pthread.h>
#include <sys/types.h>

#include "model/expert_cache.h"

/* Where an expert is on its way. All but ABSENT have a place. */
enum {
    EMO__EXPERT_ABSENT = 0,
    EMO__EXPERT_QUEUED,  /* asked for by a lease; whoever comes first reads it */
    EMO__EXPERT_READING, /* some thread fills its place, which is that thread's alone */
    EMO__EXPERT_READY,
    EMO__EXPERT_FAILED /* the read-ahead thread could not read it; the lease that wants it tries again */
};

typedef struct emo__cached_part {
    emo_source *source; /* borrowed: the model keeps its files open */
    uint64_t offset;
    emo_dtype file; /* as in the source */
    emo_dtype held;
    size_t at; /* in the place */
} emo__cached_part;

typedef struct emo__cached {
    int32_t layer;
    int32_t expert;
    emo__cached_part part[3]; /* EMO_SLOT_* */
    int32_t place;            /* -1: none */
    int32_t pins;             /* leases that hold the place */
    uint8_t state;
    bool ahead;           /* in the ring of what is to be read ahead */
    uint64_t used_pass;   /* when a pass used it last, or it was read */
    uint64_t used_step;   /* the same in layers of passes */
    uint64_t pooled_pass; /* when a pass had it in its pool last; 0: never */
    double uses;
} emo__cached;

/* Numbers of experts, first in, first out. Room for every expert. */
typedef struct emo__cached_ring {
    int32_t *items;
    size_t first;
    size_t count;
} emo__cached_ring;

struct emo__expert_cache {
    emo_model *model; /* which owns the cache */
    const emo__mem *mem;
    emo_cache_policy policy;
    emo_cache_worth worth;
    uint64_t budget;
    bool prefetch;
    bool drop;
    int64_t elements; /* of one matrix */
    /* fixed once the cache is open */
    int32_t **number; /* [layers] -> [experts] into `experts`, -1: always there; NULL for dense layers */
    emo__cached *experts;
    size_t n;
    size_t place_bytes;
    size_t capacity;
    emo__places places;
    /* Everything below, and the experts' places and states, under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* an expert arrived or failed, or a pin went */
    pthread_cond_t work;    /* there is something to read */
    pid_t owner;            /* the process the reading thread is in; 0: not open yet */
    pthread_t reader;
    bool has_reader;
    bool stop;
    int32_t *holder; /* [capacity] who has the place, -1: nobody */
    emo__cached_ring demand;
    emo__cached_ring ahead;
    uint64_t passes;
    uint64_t steps;
    uint64_t leases; /* made so far */
    double use_sum;
    emo_cache_stats stats;
};

static inline emo__cached *emo__expert_cache_find(const emo__expert_cache *c, int32_t layer, int32_t expert) {
    const int32_t *number = c->number[layer];
    return number != NULL && number[expert] >= 0 ? &c->experts[number[expert]] : NULL;
}

/* ---- expert_cache.c ---- */

/* The lock. In a child of fork() what others were reading there is given up first: its reading thread is gone. */
void emo__expert_cache_enter(emo__expert_cache *cache);
void emo__expert_cache_leave(emo__expert_cache *cache);
void emo__cached_push(emo__cached_ring *ring, size_t room, int32_t number);
/* -1: empty */
int32_t emo__cached_pop(emo__cached_ring *ring, size_t room);

/* What an expert takes of its place. */
size_t emo__expert_cache_bytes(const emo__expert_cache *cache, const emo__cached *expert);

/* ---- expert_policy.c ---- */

/* The policy's function; the host's own for EMO_CACHE_HOST. */
emo_cache_worth emo__expert_cache_policy_worth(emo_cache_policy policy, emo_cache_worth hosts);
/* Gives an expert a place, taking one from another where none is free. For `ahead`, nothing goes that the pass which
 * wants it uses. `rest`: more rows of the expert's layer come before the next layer. False: there is no place to be had
 * now. */
bool emo__expert_cache_make_room(emo__expert_cache *cache, emo__cached *expert, bool ahead, bool rest);
/* Takes its place away. */
void emo__expert_cache_drop(emo__expert_cache *cache, emo__cached *expert);
/* A pass uses it. */
void emo__expert_cache_touch(emo__expert_cache *cache, emo__cached *expert, uint64_t pass);

/* ---- expert_read.c ---- */

/* An expert that was asked for and that nobody reads yet, now the caller's to read; NULL: none. */
emo__cached *emo__expert_cache_next_demand(emo__expert_cache *cache);
/* Reads an expert in state READING into its place, without the lock, and settles its state. */
EMO_MUST_CHECK emo_status emo__expert_cache_fill(emo__expert_cache *cache, emo__cached *expert, emo_error *err);
/* Starts the thread that reads what was asked for, and what will be. */
EMO_MUST_CHECK emo_status emo__expert_cache_start_reader(emo__expert_cache *cache, emo_error *err);

#endif
