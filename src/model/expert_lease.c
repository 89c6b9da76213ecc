/* SPDX-License-Identifier: Apache-2.0 */
/* What a pass asks of the expert cache.
 *
 * A lease that waits holds nothing that another one could wait for: as long as one of its experts is there, it gets a
 * group to work on, and gives it back. So any number of leases go on with as few places as one token needs. What a
 * device still has to do with a group pins nothing: events keep its order. */
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "model/expert_cache_state.h"

/* How far a wanted expert is. */
enum {
    WANTED,  /* no place of its own yet */
    PINNED,  /* its place is held; it may still be read */
    GROUPED, /* pinned and there, and given to the pass */
    DONE
};

typedef struct wanted {
    int32_t number; /* in the cache */
    int32_t stage;
} wanted;

/* A layer's slots as a device has them. */
typedef struct told {
    emo_expert_slot *slots; /* NULL: none yet */
    void *device;
} told;

struct emo__lease {
    emo__expert_cache *cache;
    uint64_t id; /* from 1 */
    uint64_t pass;
    uint64_t seen; /* the latest copy into a place that the exec waits for */
    told *told;    /* [layers]; NULL on the CPU, which reads `slots` */
    int32_t layer;
    bool rest; /* more rows of the layer come */
    int32_t n;
    wanted *want;           /* [widest layer] */
    bool residents;         /* the experts that are always there have not been given yet */
    bool first;             /* no group has been given yet */
    emo_expert_slot *slots; /* [widest layer] of the group */
    int32_t *offsets;       /* [widest layer + 1] */
    uint8_t *flags;
    size_t flags_room;
};

emo_status emo__lease_create(const emo_model *m, emo__lease **out, emo_error *err) {
    const emo__mem *mem = &m->rt->mem;
    size_t widest = emo__config_widest(&m->config);
    *out = NULL;
    emo__lease *ls = emo__calloc(mem, 1, sizeof *ls);
    if (ls == NULL)
        return emo__fail_memory(err, sizeof *ls);
    ls->cache = m->cache;
    ls->want = emo__calloc(mem, widest, sizeof *ls->want);
    ls->slots = emo__calloc(mem, widest, sizeof *ls->slots);
    ls->offsets = emo__calloc(mem, widest + 1, sizeof *ls->offsets);
    if (ls->want == NULL || ls->slots == NULL || ls->offsets == NULL) {
        emo__lease_destroy(ls);
        return emo__fail_memory(err, widest * sizeof *ls->slots);
    }
    if (emo__places_on_device(&m->cache->places)) {
        ls->told = emo__calloc(mem, (size_t)m->config.layers, sizeof *ls->told);
        if (ls->told == NULL) {
            emo__lease_destroy(ls);
            return emo__fail_memory(err, (size_t)m->config.layers * sizeof *ls->told);
        }
    }
    emo__expert_cache_enter(m->cache);
    ls->id = ++m->cache->leases;
    emo__expert_cache_leave(m->cache);
    *out = ls;
    return EMO_OK;
}

void emo__lease_destroy(emo__lease *ls) {
    if (ls == NULL)
        return;
    const emo__mem *mem = ls->cache->mem;
    emo_backend *backend = ls->cache->places.backend;
    for (int32_t l = 0; ls->told != NULL && l < ls->cache->model->config.layers; l++) {
        emo_expert_table table = {ls->told[l].slots, 0, ls->told[l].device};
        if (table.device != NULL)
            backend->ops->table_free(backend, &table);
        emo__free(mem, ls->told[l].slots);
    }
    emo__free(mem, ls->told);
    emo__free(mem, ls->want);
    emo__free(mem, ls->slots);
    emo__free(mem, ls->offsets);
    emo__free(mem, ls->flags);
    emo__free(mem, ls);
}

/* ---- pools, and reading ahead ---- */

static bool in_any(const uint8_t *allowed, int64_t documents, int32_t routed, int32_t e) {
    for (int64_t d = 0; d < documents; d++) {
        if (allowed[d * routed + e] != 0)
            return true;
    }
    return false;
}

/* Experts of a layer in the documents' sets. *narrow: some are in none. With `mark` they become this pass's, and with
 * `read` those that are not there are read ahead. */
static size_t walk_layer(emo__lease *ls, int32_t l, const uint8_t *allowed, int64_t documents, bool mark, bool read,
                         bool *narrow) {
    emo__expert_cache *c = ls->cache;
    int32_t routed = emo__config_routed(&c->model->config, l);
    size_t count = 0;
    for (int32_t e = 0; e < routed; e++) {
        emo__cached *x = emo__expert_cache_find(c, l, e);
        if (x == NULL)
            continue;
        if (!in_any(allowed, documents, routed, e)) {
            *narrow = true;
            continue;
        }
        count++;
        if (mark)
            x->pooled_pass = ls->pass;
        if (read && x->state == EMO__EXPERT_ABSENT && !x->ahead) {
            x->ahead = true;
            emo__cached_push(&c->ahead, c->n, (int32_t)(x - c->experts));
        }
    }
    return count;
}

/* The documents' sets in layers [first, last), `allowed` [last - first], NULL: all. Their experts are the pass's, and
 * are read ahead when they fit together. Without a restriction nothing is known. */
static void expect(emo__lease *ls, int32_t first, int32_t last, const uint8_t *const *allowed, int64_t documents) {
    emo__expert_cache *c = ls->cache;
    size_t count = 0;
    bool narrow = false;
    for (int32_t l = first; l < last; l++) {
        if (c->number[l] != NULL && allowed[l - first] != NULL)
            count += walk_layer(ls, l, allowed[l - first], documents, false, false, &narrow);
        else if (c->number[l] != NULL)
            count += (size_t)c->model->config.layer[l].experts;
    }
    for (int32_t l = first; narrow && l < last; l++) {
        if (c->number[l] != NULL && allowed[l - first] != NULL)
            (void)walk_layer(ls, l, allowed[l - first], documents, true, c->has_reader && count <= c->capacity,
                             &narrow);
    }
    if (c->ahead.count > 0)
        (void)pthread_cond_signal(&c->work);
}

void emo__lease_pass(emo__lease *ls, const uint8_t *const *allowed, int64_t documents) {
    emo__expert_cache *c = ls->cache;
    emo__expert_cache_enter(c);
    ls->pass = ++c->passes;
    if (allowed != NULL)
        expect(ls, 0, c->model->config.layers, allowed, documents);
    emo__expert_cache_leave(c);
}

uint8_t *emo__lease_flags(emo__lease *ls, int64_t documents) {
    emo_status status = emo__grow(ls->cache->mem, (void **)&ls->flags, &ls->flags_room, (size_t)documents,
                                  emo__config_widest(&ls->cache->model->config), NULL);
    return status == EMO_OK ? ls->flags : NULL;
}

void emo__lease_pool(emo__lease *ls, int32_t l, const uint8_t *allowed, int64_t documents) {
    emo__expert_cache_enter(ls->cache);
    expect(ls, l, l + 1, &allowed, documents);
    emo__expert_cache_leave(ls->cache);
}

/* ---- groups ---- */

int32_t *emo__lease_offsets(emo__lease *ls) { return ls->offsets; }

void emo__lease_begin(emo__lease *ls, int32_t l, bool rest) {
    emo__expert_cache *c = ls->cache;
    int32_t experts = c->model->config.layer[l].experts;
    ls->layer = l;
    ls->rest = rest;
    ls->n = 0;
    ls->first = true;
    ls->residents = false;
    emo__expert_cache_enter(c);
    c->steps++;
    for (int32_t e = 0; e < experts; e++) {
        if (ls->offsets[e + 1] <= ls->offsets[e])
            continue;
        emo__cached *x = emo__expert_cache_find(c, l, e);
        if (x == NULL) {
            ls->residents = true;
            continue;
        }
        wanted *w = &ls->want[ls->n++];
        *w = (wanted){(int32_t)(x - c->experts), WANTED};
        if (x->state == EMO__EXPERT_READY) {
            x->pins++;
            w->stage = PINNED;
            c->stats.hits++;
        } else {
            c->stats.misses++;
        }
    }
    emo__expert_cache_leave(c);
}

/* Pinned experts that are there join the group. */
static int32_t collect(emo__lease *ls) {
    int32_t n = 0;
    for (int32_t i = 0; i < ls->n; i++) {
        emo__cached *x = &ls->cache->experts[ls->want[i].number];
        if (ls->want[i].stage != PINNED || x->state != EMO__EXPERT_READY)
            continue;
        ls->want[i].stage = GROUPED;
        emo__expert_cache_touch(ls->cache, x, ls->pass);
        n++;
    }
    return n;
}

/* Pins what is wanted, as far as there are places. Returns how many are not there yet. */
static int32_t ask(emo__lease *ls) {
    emo__expert_cache *c = ls->cache;
    int32_t left = 0;
    for (int32_t i = 0; i < ls->n; i++) {
        wanted *w = &ls->want[i];
        emo__cached *x = &c->experts[w->number];
        if (w->stage == WANTED && x->state == EMO__EXPERT_ABSENT &&
            emo__expert_cache_make_room(c, x, false, ls->rest)) {
            x->state = EMO__EXPERT_QUEUED;
            emo__cached_push(&c->demand, c->n, w->number);
            (void)pthread_cond_signal(&c->work);
        }
        if (w->stage == WANTED && x->state != EMO__EXPERT_ABSENT) {
            x->pins++;
            w->stage = PINNED;
        }
        left += w->stage == WANTED || (w->stage == PINNED && x->state != EMO__EXPERT_READY);
    }
    return left;
}

static bool is_mine(const emo__lease *ls, const emo__cached *x) {
    for (int32_t i = 0; i < ls->n; i++) {
        if (&ls->cache->experts[ls->want[i].number] == x)
            return ls->want[i].stage == PINNED;
    }
    return false;
}

static emo__cached *failed_one(const emo__lease *ls) {
    for (int32_t i = 0; i < ls->n; i++) {
        emo__cached *x = &ls->cache->experts[ls->want[i].number];
        if (ls->want[i].stage == PINNED && x->state == EMO__EXPERT_FAILED)
            return x;
    }
    return NULL;
}

/* Reads an expert that somebody waits for, or waits until something changes. */
static emo_status wait_for_one(emo__lease *ls, emo_error *err) {
    emo__expert_cache *c = ls->cache;
    emo__cached *x = failed_one(ls);
    if (x != NULL)
        x->state = EMO__EXPERT_READING;
    else
        x = emo__expert_cache_next_demand(c);
    if (x == NULL) {
        (void)pthread_cond_wait(&c->changed, &c->lock);
        return EMO_OK;
    }
    bool mine = is_mine(ls, x);
    emo_error why = EMO_ERROR_INIT;
    emo_status status = emo__expert_cache_fill(c, x, &why);
    if (status == EMO_OK || !mine) /* a failure of another's is another's to meet */
        return EMO_OK;
    return emo__fail_at(err, status, why.domain, why.number, "%s", why.message);
}

static void fill_slot(emo__lease *ls, const emo__cached *x) {
    const char *place = emo__places_at(&ls->cache->places, x->place);
    emo_expert_slot *slot = &ls->slots[x->expert];
    *slot = ls->cache->model->layers[ls->layer].experts[x->expert];
    slot->gate.data = place + x->part[EMO_SLOT_GATE].at;
    slot->up.data = place + x->part[EMO_SLOT_UP].at;
    slot->down.data = place + x->part[EMO_SLOT_DOWN].at;
}

/* With the lock. Where a whole group is known to the device, it is known with all that is there, so that the device's
 * table changes only when experts come and go. */
static void fill_table(emo__lease *ls, bool whole, emo_expert_table *table) {
    const emo__expert_cache *c = ls->cache;
    const emo_expert_slot *own = c->model->layers[ls->layer].experts;
    int32_t experts = c->model->config.layer[ls->layer].experts;
    memset(ls->slots, 0, (size_t)experts * sizeof *ls->slots);
    bool all = whole && ls->told != NULL;
    for (int32_t e = 0; e < experts; e++) {
        int32_t number = c->number[ls->layer][e];
        if (number < 0 && (ls->residents || all))
            ls->slots[e] = own[e];
        else if (number >= 0 && all && c->experts[number].state == EMO__EXPERT_READY)
            fill_slot(ls, &c->experts[number]);
    }
    ls->residents = false;
    for (int32_t i = 0; i < ls->n; i++) {
        if (ls->want[i].stage == GROUPED)
            fill_slot(ls, &c->experts[ls->want[i].number]);
    }
    *table = (emo_expert_table){ls->slots, experts, NULL};
}

emo_status emo__lease_next(emo__lease *ls, emo_expert_table *table, bool *whole, bool *more, emo_error *err) {
    emo__expert_cache *c = ls->cache;
    emo_status status = EMO_OK;
    uint64_t stalled = 0;
    int32_t ready;
    int32_t left;
    emo__expert_cache_enter(c);
    for (;;) {
        left = ask(ls);
        ready = collect(ls);
        if (ready > 0 || ls->residents || left == 0)
            break;
        uint64_t start = emo__now_ns();
        status = wait_for_one(ls, err);
        stalled += emo__now_ns() - start;
        if (status != EMO_OK)
            break;
    }
    c->stats.stall_ns += stalled;
    *whole = ls->first && left == 0;
    *more = ready > 0 || ls->residents;
    ls->first = false;
    if (status == EMO_OK && *more)
        fill_table(ls, *whole, table);
    emo__expert_cache_leave(c);
    if (status != EMO_OK)
        emo__lease_end(ls);
    return status;
}

/* ---- a group on its exec ---- */

/* The exec goes on when the latest copy of the group is done, and with it the ones before. */
static emo_status order_copies(emo__lease *ls, emo_exec *exec, emo_error *err) {
    const emo__places *p = &ls->cache->places;
    uint64_t latest = ls->seen;
    emo_event *filled = NULL;
    for (int32_t i = 0; i < ls->n; i++) {
        if (ls->want[i].stage != GROUPED)
            continue;
        const emo__place *o = &p->order[ls->cache->experts[ls->want[i].number].place];
        filled = o->fill > latest ? o->filled : filled;
        latest = o->fill > latest ? o->fill : latest;
    }
    emo_status status = filled != NULL ? p->backend->ops->event_order(exec, filled, err) : EMO_OK;
    if (status == EMO_OK)
        ls->seen = latest;
    return status;
}

/* Makes the layer's slots known, where they changed. */
static emo_status tell(emo__lease *ls, emo_exec *exec, emo_expert_table *table, emo_error *err) {
    const emo_backend_ops *ops = ls->cache->places.backend->ops;
    told *t = &ls->told[ls->layer];
    size_t bytes = (size_t)table->count * sizeof *t->slots;
    if (t->slots == NULL)
        t->slots = emo__calloc(ls->cache->mem, (size_t)table->count, sizeof *t->slots);
    if (t->slots == NULL)
        return emo__fail_memory(err, bytes);
    table->device = t->device;
    if (t->device != NULL && memcmp(t->slots, table->slots, bytes) == 0)
        return EMO_OK;
    emo_status status = (ops->table_update != NULL ? ops->table_update : ops->table_sync)(exec, table, err);
    t->device = table->device;
    if (status == EMO_OK)
        memcpy(t->slots, table->slots, bytes);
    else
        memset(t->slots, 0, bytes); /* what the device has now is not known: the next ones differ from this */
    return status;
}

emo_status emo__lease_bring(emo__lease *ls, emo_exec *exec, emo_expert_table *table, emo_error *err) {
    emo__expert_cache *c = ls->cache;
    if (ls->told == NULL)
        return c->places.backend->ops->table_sync(exec, table, err);
    emo__expert_cache_enter(c);
    emo_status status = order_copies(ls, exec, err);
    emo__expert_cache_leave(c);
    return status == EMO_OK ? tell(ls, exec, table, err) : status;
}

emo_status emo__lease_used(emo__lease *ls, emo_exec *exec, emo_error *err) {
    emo__expert_cache *c = ls->cache;
    const emo_backend_ops *ops = c->places.backend->ops;
    if (ls->told == NULL)
        return ops->synchronize(exec, err);
    emo_status status = EMO_OK;
    emo__expert_cache_enter(c);
    for (int32_t i = 0; status == EMO_OK && i < ls->n; i++) {
        if (ls->want[i].stage == GROUPED)
            status = emo__places_used(&c->places, c->experts[ls->want[i].number].place, exec, ls->id, err);
    }
    emo__expert_cache_leave(c);
    if (status != EMO_OK)
        (void)ops->synchronize(exec, NULL); /* then nothing reads them any more */
    return status;
}

/* ---- the end of a group ---- */

/* Unpins what is in `stage`. */
static void unpin(emo__lease *ls, int32_t stage) {
    for (int32_t i = 0; i < ls->n; i++) {
        emo__cached *x = &ls->cache->experts[ls->want[i].number];
        if (ls->want[i].stage != stage)
            continue;
        ls->want[i].stage = DONE;
        if (--x->pins == 0 && x->state == EMO__EXPERT_FAILED)
            emo__expert_cache_drop(ls->cache, x);
    }
}

void emo__lease_done(emo__lease *ls) {
    emo__expert_cache_enter(ls->cache);
    unpin(ls, GROUPED);
    (void)pthread_cond_broadcast(&ls->cache->changed);
    emo__expert_cache_leave(ls->cache);
}

void emo__lease_end(emo__lease *ls) {
    emo__expert_cache_enter(ls->cache);
    unpin(ls, GROUPED);
    unpin(ls, PINNED);
    ls->n = 0;
    ls->residents = false;
    (void)pthread_cond_broadcast(&ls->cache->changed);
    emo__expert_cache_leave(ls->cache);
}
