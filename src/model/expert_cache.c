/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an expert cache. */
#include "model/expert_cache.h"

#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/status.h"
#include "model/access.h"
#include "model/expert_cache_state.h"
#include "model/files.h"
#include "tensor/quant.h"

#define ALIGN ((size_t)64)

/* ---- which experts ---- */

static bool comes_and_goes(const emo_model *m, int32_t l, int32_t e) {
    const emo__layer_config *layer = &m->config.layer[l];
    if (e >= emo__config_routed(&m->config, l))
        return false;
    for (int32_t i = 0; i < layer->n_always; i++) {
        if (layer->always[i] == e)
            return false;
    }
    return m->subset == NULL || emo_mask_get(m->subset, l, e) != 0;
}

static size_t count_experts(const emo_model *m) {
    size_t n = 0;
    for (int32_t l = 0; l < m->config.layers; l++) {
        for (int32_t e = 0; e < m->config.layer[l].experts; e++)
            n += comes_and_goes(m, l, e);
    }
    return n;
}

static emo_status list_experts(emo__expert_cache *c, emo_error *err) {
    const emo_model *m = c->model;
    int32_t at = 0;
    c->number = emo__calloc(c->mem, (size_t)m->config.layers, sizeof *c->number);
    c->experts = emo__calloc(c->mem, c->n, sizeof *c->experts);
    if (c->number == NULL || c->experts == NULL)
        return emo__fail_memory(err, c->n * sizeof *c->experts);
    for (int32_t l = 0; l < m->config.layers; l++) {
        int32_t experts = m->config.layer[l].experts;
        if (experts == 0)
            continue;
        c->number[l] = emo__malloc_array(c->mem, (size_t)experts, sizeof **c->number);
        if (c->number[l] == NULL)
            return emo__fail_memory(err, (size_t)experts * sizeof **c->number);
        for (int32_t e = 0; e < experts; e++) {
            c->number[l][e] = comes_and_goes(m, l, e) ? at : -1;
            if (c->number[l][e] >= 0)
                c->experts[at++] = (emo__cached){.layer = l, .expert = e, .place = -1};
        }
    }
    return EMO_OK;
}

emo_status emo__expert_cache_create(emo_model *m, const emo_model_load_options *options, emo__expert_cache **out,
                                    emo_error *err) {
    size_t n = options->memory_budget > 0 ? count_experts(m) : 0;
    *out = NULL;
    if (n == 0)
        return EMO_OK;
    emo__expert_cache *c = emo__calloc(&m->rt->mem, 1, sizeof *c);
    if (c == NULL)
        return emo__fail_memory(err, sizeof *c);
    c->model = m;
    c->mem = &m->rt->mem;
    c->n = n;
    c->policy = options->cache_policy;
    c->worth = emo__expert_cache_policy_worth(c->policy, options->cache_worth);
    c->budget = options->memory_budget;
    c->prefetch = options->no_prefetch == 0;
    c->drop = options->drop_source != 0;
    c->elements = (int64_t)m->config.inner * m->config.hidden;
    emo_status status = list_experts(c, err);
    if (status == EMO_OK)
        *out = c;
    else
        emo__expert_cache_destroy(c);
    return status;
}

bool emo__expert_cache_holds(const emo__expert_cache *c, int32_t layer, int32_t expert) {
    return c != NULL && layer >= 0 && expert >= 0 && emo__expert_cache_find(c, layer, expert) != NULL;
}

void emo__expert_cache_place(emo__expert_cache *c, int32_t layer, int32_t expert, int32_t which, emo_source *source,
                             uint64_t offset, emo_dtype file, emo_dtype held) {
    emo_expert_slot *slot = &c->model->layers[layer].experts[expert];
    emo_weight *view = which == EMO_SLOT_GATE ? &slot->gate : which == EMO_SLOT_UP ? &slot->up : &slot->down;
    emo__expert_cache_find(c, layer, expert)->part[which] = (emo__cached_part){source, offset, file, held, 0};
    view->dtype = held;
    view->stride = view->cols;
}

/* ---- memory and thread ---- */

size_t emo__expert_cache_bytes(const emo__expert_cache *c, const emo__cached *x) {
    const emo__cached_part *last = &x->part[EMO_SLOT_DOWN];
    return last->at + emo__dtype_run(last->held, c->elements);
}

static emo_status size_places(emo__expert_cache *c, emo_error *err) {
    for (size_t i = 0; i < c->n; i++) {
        size_t at = 0;
        for (int k = 0; k < 3; k++) {
            size_t bytes = 0;
            c->experts[i].part[k].at = at;
            if (!emo__dtype_bytes(c->experts[i].part[k].held, c->elements, &bytes) ||
                !emo__add_size(bytes, ALIGN - 1, &bytes) || !emo__add_size(at, bytes / ALIGN * ALIGN, &at))
                return emo__fail_memory(err, SIZE_MAX);
        }
        c->place_bytes = at > c->place_bytes ? at : c->place_bytes;
    }
    return EMO_OK;
}

/* What one token chooses at most of the experts that come and go, and where. */
static emo_status most_chosen(const emo__expert_cache *c, int32_t *most, int32_t *layer, emo_error *err) {
    const emo_model *m = c->model;
    size_t widest = emo__config_widest(&m->config);
    uint8_t *keep = emo__alloc(c->mem, widest);
    emo_status status = keep != NULL ? EMO_OK : emo__fail_memory(err, widest);
    *most = *layer = 0;
    for (int32_t l = 0; status == EMO_OK && l < m->config.layers; l++) {
        if (c->number[l] == NULL)
            continue;
        status = emo__model_keep(m, NULL, l, keep, err);
        int32_t chosen = status == EMO_OK ? emo__choices(&m->config, l, keep) : 0;
        if (chosen > *most) {
            *most = chosen;
            *layer = l;
        }
    }
    emo__free(c->mem, keep);
    return status;
}

static emo_status check_budget(emo__expert_cache *c, emo_error *err) {
    int32_t most = 0;
    int32_t layer = 0;
    emo_status status = most_chosen(c, &most, &layer, err);
    if (status != EMO_OK)
        return status;
    uint64_t fit = c->budget / c->place_bytes;
    if (fit < (uint64_t)most || fit == 0)
        return emo__fail(err, EMO_E_RANGE,
                         "emo_model_load_options.memory_budget is %llu bytes; the %d experts that a token chooses in "
                         "layer %d need %llu (%zu each)",
                         (unsigned long long)c->budget, (int)(most > 0 ? most : 1), (int)layer,
                         (unsigned long long)(most > 0 ? most : 1) * c->place_bytes, c->place_bytes);
    c->capacity = fit < c->n ? (size_t)fit : c->n;
    return EMO_OK;
}

/* In this process: nobody holds the lock, or a place. */
static void begin_here(emo__expert_cache *c) {
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->changed, NULL);
    (void)pthread_cond_init(&c->work, NULL);
    c->owner = getpid();
    for (int i = 0; i < EMO__LANES; i++)
        c->places.lanes[i].busy = false;
    for (size_t i = 0; i < c->capacity; i++)
        c->holder[i] = -1;
}

emo_status emo__expert_cache_open(emo__expert_cache *c, emo_error *err) {
    emo_status status;
    EMO_TRY(status = size_places(c, err));
    EMO_TRY(status = check_budget(c, err));
    c->holder = emo__malloc_array(c->mem, c->capacity, sizeof *c->holder);
    c->demand.items = emo__malloc_array(c->mem, c->n, sizeof *c->demand.items);
    c->ahead.items = emo__malloc_array(c->mem, c->n, sizeof *c->ahead.items);
    if (c->holder == NULL || c->demand.items == NULL || c->ahead.items == NULL)
        return emo__fail_memory(err, c->n * sizeof *c->holder);
    EMO_TRY(status = emo__expert_cache_move(c, c->model->backend, &c->places, err));
    begin_here(c);
    if (c->prefetch)
        status = emo__expert_cache_start_reader(c, err);
done:
    return status;
}

void emo__expert_cache_destroy(emo__expert_cache *c) {
    if (c == NULL)
        return;
    if (c->owner == getpid()) { /* else it was never open, or there is nobody to wait for */
        if (c->has_reader) {
            (void)pthread_mutex_lock(&c->lock);
            c->stop = true;
            (void)pthread_cond_broadcast(&c->work);
            (void)pthread_mutex_unlock(&c->lock);
            (void)pthread_join(c->reader, NULL);
        }
        (void)pthread_cond_destroy(&c->work);
        (void)pthread_cond_destroy(&c->changed);
        (void)pthread_mutex_destroy(&c->lock);
    }
    emo__places_close(&c->places, c->mem);
    for (int32_t l = 0; c->number != NULL && l < c->model->config.layers; l++)
        emo__free(c->mem, c->number[l]);
    emo__free(c->mem, c->number);
    emo__free(c->mem, c->experts);
    emo__free(c->mem, c->holder);
    emo__free(c->mem, c->demand.items);
    emo__free(c->mem, c->ahead.items);
    emo__free(c->mem, c);
}

/* ---- another device ---- */

emo_status emo__expert_cache_can_move(const emo__expert_cache *c, const emo_backend *to, emo_error *err) {
    return c == NULL || to == c->model->rt->cpu ? EMO_OK : emo__places_check(to, err);
}

emo_status emo__expert_cache_move(const emo__expert_cache *c, emo_backend *to, emo__places *places, emo_error *err) {
    *places = (emo__places){0};
    if (c == NULL)
        return EMO_OK;
    return emo__places_open(places, c->mem, to, to != c->model->rt->cpu, c->capacity, c->place_bytes, err);
}

void emo__expert_cache_not_moved(const emo__expert_cache *c, emo__places *places) {
    if (c != NULL)
        emo__places_close(places, c->mem);
}

void emo__expert_cache_moved(emo__expert_cache *c, emo__places *places) {
    if (c == NULL)
        return;
    emo__expert_cache_enter(c);
    c->demand.count = c->ahead.count = 0; /* nothing is begun any more, and no lease asks */
    for (size_t i = 0; i < c->n; i++) {
        emo__cached *x = &c->experts[i];
        while (x->state == EMO__EXPERT_READING)
            (void)pthread_cond_wait(&c->changed, &c->lock);
        x->ahead = false;
        x->place = -1;
        x->state = EMO__EXPERT_ABSENT;
    }
    for (size_t i = 0; i < c->capacity; i++)
        c->holder[i] = -1;
    emo__places old = c->places;
    c->places = *places;
    emo__expert_cache_leave(c);
    emo__places_close(&old, c->mem);
}

/* ---- the lock, and the queues behind it ---- */

/* In a child of fork(): the reading thread is gone, the lock is as whoever held it left it, and so are reads. */
static void begin_anew(emo__expert_cache *c) {
    begin_here(c);
    c->has_reader = false;
    c->demand.count = c->ahead.count = 0;
    for (size_t i = 0; i < c->n; i++) {
        emo__cached *x = &c->experts[i];
        x->pins = 0;
        x->ahead = false;
        if (x->state == EMO__EXPERT_READY && x->place >= 0) {
            c->holder[x->place] = (int32_t)i;
        } else {
            x->state = EMO__EXPERT_ABSENT;
            x->place = -1;
        }
    }
}

void emo__expert_cache_enter(emo__expert_cache *c) {
    if (getpid() != c->owner)
        begin_anew(c);
    (void)pthread_mutex_lock(&c->lock);
}

void emo__expert_cache_leave(emo__expert_cache *c) { (void)pthread_mutex_unlock(&c->lock); }

void emo__cached_push(emo__cached_ring *ring, size_t room, int32_t number) {
    ring->items[(ring->first + ring->count) % room] = number;
    ring->count++;
}

int32_t emo__cached_pop(emo__cached_ring *ring, size_t room) {
    if (ring->count == 0)
        return -1;
    int32_t number = ring->items[ring->first];
    ring->first = (ring->first + 1) % room;
    ring->count--;
    return number;
}

void emo__expert_cache_stats(emo__expert_cache *c, emo_cache_stats *out) {
    emo__expert_cache_enter(c);
    *out = c->stats;
    for (size_t i = 0; i < c->capacity; i++)
        out->present += c->holder[i] >= 0 && c->experts[c->holder[i]].state == EMO__EXPERT_READY;
    emo__expert_cache_leave(c);
    out->policy = c->policy;
    out->experts = c->n;
    out->capacity = c->capacity;
    out->bytes = (uint64_t)c->capacity * c->place_bytes;
}
