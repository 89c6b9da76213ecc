/* SPDX-License-Identifier: Apache-2.0 */
/* Which expert gives its place to another. */
#include <math.h>

#include "model/expert_cache_state.h"

static double negative(uint64_t age) { return age == UINT64_MAX ? -HUGE_VAL : -(double)age; }

/* Between passes the age decides, and to be in a pool counts as a use. Inside one pass layers come in turn: the one
 * that was just left comes last, so that what does not fit is missed in some layers only, not in all of them. */
static double worth_pool(void *ctx, const emo_cache_entry *e) {
    (void)ctx;
    uint64_t age = e->passes_unpooled < e->passes_unused ? e->passes_unpooled : e->passes_unused;
    double ahead = (double)e->layers_ahead / ((double)e->layers_ahead + 1.0);
    return negative(age) - 0.99 * ahead + 1e-6 * e->uses / (e->uses + 1.0);
}

static double worth_lru(void *ctx, const emo_cache_entry *e) {
    (void)ctx;
    return negative(e->steps_unused);
}

static double worth_lfu(void *ctx, const emo_cache_entry *e) {
    (void)ctx;
    return e->uses - 1e-3 * (1.0 - 1.0 / (1.0 + (double)e->steps_unused)); /* among equals the older one */
}

emo_cache_worth emo__expert_cache_policy_worth(emo_cache_policy policy, emo_cache_worth hosts) {
    static double (*const own[])(void *, const emo_cache_entry *) = {
        [EMO_CACHE_POOL] = worth_pool, [EMO_CACHE_LRU] = worth_lru, [EMO_CACHE_LFU] = worth_lfu};
    return policy == EMO_CACHE_HOST ? hosts : (emo_cache_worth){NULL, own[policy]};
}

static emo_cache_entry entry_of(const emo__expert_cache *c, const emo__cached *x, int32_t layer, bool rest) {
    int32_t layers = c->model->config.layers;
    emo_cache_entry e = {0};
    e.layer = x->layer;
    e.expert = x->expert;
    e.layers_ahead = rest && x->layer == layer ? 0 : (x->layer - layer + layers - 1) % layers + 1;
    e.passes_unused = c->passes - x->used_pass;
    e.passes_unpooled = x->pooled_pass > 0 ? c->passes - x->pooled_pass : UINT64_MAX;
    e.steps_unused = c->steps - x->used_step;
    e.uses = x->uses;
    return e;
}

void emo__expert_cache_drop(emo__expert_cache *c, emo__cached *x) {
    c->holder[x->place] = -1;
    x->place = -1;
    x->state = EMO__EXPERT_ABSENT;
}

bool emo__expert_cache_make_room(emo__expert_cache *c, emo__cached *x, bool ahead, bool rest) {
    int32_t place = -1;
    double least = 0.0;
    for (size_t i = 0; place < 0 && i < c->capacity; i++)
        place = c->holder[i] < 0 ? (int32_t)i : -1;
    bool full = place < 0;
    for (size_t i = 0; full && i < c->capacity; i++) {
        const emo__cached *y = &c->experts[c->holder[i]];
        if (y->pins > 0 || y->state != EMO__EXPERT_READY)
            continue;
        if (ahead && (y->pooled_pass >= x->pooled_pass || y->used_pass >= x->pooled_pass))
            continue;
        emo_cache_entry e = entry_of(c, y, x->layer, rest);
        double worth = c->worth.worth(c->worth.ctx, &e);
        if (place < 0 || worth < least || (isnan(worth) && !isnan(least))) {
            place = (int32_t)i;
            least = worth;
        }
    }
    if (place < 0)
        return false;
    if (c->holder[place] >= 0) {
        emo__expert_cache_drop(c, &c->experts[c->holder[place]]);
        c->stats.evictions++;
    }
    c->holder[place] = (int32_t)(x - c->experts);
    x->place = place;
    return true;
}

void emo__expert_cache_touch(emo__expert_cache *c, emo__cached *x, uint64_t pass) {
    x->used_pass = pass > x->used_pass ? pass : x->used_pass;
    x->used_step = c->steps;
    x->uses += 1.0;
    c->use_sum += 1.0;
    if (c->use_sum < 16.0 * (double)c->n)
        return;
    for (size_t i = 0; i < c->n; i++)
        c->experts[i].uses *= 0.5;
    c->use_sum *= 0.5;
}
