/* SPDX-License-Identifier: Apache-2.0 */
#include "tape.h"

#include <stdio.h>
#include <string.h>

enum { GRAPHS = 48, SEEN = 128, ALIGN = 16 };
#define FIRST_VALUES ((size_t)64 << 10)

/* Before the bytes of every entry. */
typedef struct header {
    emo_issue_fn issue;
    const char *what;
    size_t size; /* with the header, a multiple of ALIGN */
    size_t reserved;
} header;

typedef struct graph {
    uint64_t key, hash;
    char *bytes; /* the tape it was made of */
    size_t size;
    cudaGraphExec_t exec;
    uint64_t last; /* use */
} graph;

/* What the pieces with one key ask for, in its order: [count] sizes, and addresses where they are of their own. */
typedef struct wants {
    size_t count, room, at;
    size_t *size;
    void **ptr;
} wants;

typedef struct piece_kind {
    struct piece_kind *next;
    uint64_t key;
    wants values;  /* the most each was: what stands behind keeps its place when one gets longer */
    wants scratch; /* in checked builds */
} piece_kind;

struct emo_tape {
    emo_cuda_exec *exec;
    int32_t open; /* between begin and end */
    int32_t off;  /* graphs do not work here */
    uint64_t key;
    char *bytes;
    size_t used, room;
    char *values; /* on the host */
    void *device_values;
    size_t values_used, values_room, values_wanted;
    size_t values_most; /* of a piece so far */
    int32_t fixed;      /* the room was reserved, and stays as it is */
    graph graphs[GRAPHS];
    uint64_t seen[SEEN];
    uint64_t n_seen, uses;
    piece_kind *kinds, *kind; /* of the piece under way */
    emo_replay_counts counts;
};

static const emo_backend_services *services_of(const emo_tape *tape) { return &tape->exec->device->services; }

static void *host_alloc(const emo_tape *tape, size_t bytes) {
    return services_of(tape)->alloc(services_of(tape)->ctx, bytes);
}
static void host_free(const emo_tape *tape, void *p) { services_of(tape)->free(services_of(tape)->ctx, p); }

static void say(const emo_tape *tape, emo_log_level level, const char *what, const char *detail) {
    char message[1024];
    (void)snprintf(message, sizeof message, "%s%s", what, detail);
    services_of(tape)->log(services_of(tape)->ctx, level, message);
}

/* ---- taking entries ---- */

static int grow(emo_tape *tape, size_t need) {
    if (need <= tape->room)
        return 1;
    size_t room = tape->room > 0 ? 2 * tape->room : (size_t)64 << 10;
    while (room < need)
        room *= 2;
    char *bytes = (char *)host_alloc(tape, room);
    if (bytes == NULL)
        return 0;
    if (tape->used > 0)
        memcpy(bytes, tape->bytes, tape->used);
    host_free(tape, tape->bytes);
    tape->bytes = bytes;
    tape->room = room;
    return 1;
}

void *emo_tape_add(emo_tape *tape, emo_issue_fn issue, const char *what, size_t bytes) {
    size_t size = (sizeof(header) + bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (tape->exec->holding == NULL)
        return NULL;
    if (!grow(tape, tape->used + size)) {
        (void)emo_cuda_tape_issue(tape->exec, "out of host memory", NULL); /* a failure shows at the next wait */
        return NULL;
    }
    header *h = (header *)(tape->bytes + tape->used);
    memset(h, 0, size);
    h->issue = issue;
    h->what = what;
    h->size = size;
    tape->used += size;
    return h + 1;
}

emo_status emo_cuda_enqueue(emo_exec *exec, emo_issue_fn issue, const char *what, const void *entry, size_t bytes,
                            emo_error *err) {
    emo_queue queue = emo_cuda_stream(exec);
    if (emo_cuda_planning(emo_cuda_of(exec)))
        return EMO_OK;
    void *held = queue.tape != NULL ? emo_tape_add(queue.tape, issue, what, bytes) : NULL;
    if (held == NULL)
        return emo_cuda_check(issue(entry, queue.stream), what, err);
    memcpy(held, entry, bytes);
    return EMO_OK;
}

/* The next of what the piece asks for; NULL: out of host memory. A new one has size 0. */
static int next_want(emo_tape *tape, wants *w, size_t *i) {
    if (w->at == w->room) {
        size_t room = w->room > 0 ? 2 * w->room : 64;
        void **ptr = (void **)host_alloc(tape, room * sizeof *ptr);
        size_t *size = (size_t *)host_alloc(tape, room * sizeof *size);
        if (ptr == NULL || size == NULL) {
            host_free(tape, ptr);
            host_free(tape, size);
            return 0;
        }
        memset(ptr, 0, room * sizeof *ptr);
        memset(size, 0, room * sizeof *size);
        if (w->count > 0) {
            memcpy(ptr, w->ptr, w->count * sizeof *ptr);
            memcpy(size, w->size, w->count * sizeof *size);
        }
        host_free(tape, w->ptr);
        host_free(tape, w->size);
        w->ptr = ptr;
        w->size = size;
        w->room = room;
    }
    *i = w->at++;
    w->count = w->at > w->count ? w->at : w->count;
    return 1;
}

/* Of a planner, where values are only counted: each in the same place. */
static emo_status host_values(emo_tape *tape, size_t bytes, void **out, emo_error *err) {
    if (bytes > tape->values_room) {
        void *values = NULL;
        EMO_CUDA_TRY(emo_cuda_host_zeroed(tape->exec, bytes, &values, err));
        host_free(tape, tape->values);
        tape->values = (char *)values;
        tape->values_room = bytes;
    }
    *out = tape->values;
    return EMO_OK;
}

emo_status emo_cuda_tape_values(emo_cuda_exec *exec, size_t bytes, emo_tape_values *out, emo_error *err) {
    emo_tape *tape = exec->holding;
    size_t i, at;
    memset(out, 0, sizeof *out);
    if (tape == NULL)
        return EMO_OK;
    if (!next_want(tape, &tape->kind->values, &i))
        return emo_cuda_tape_issue(exec, "out of host memory", err);
    size_t room = (bytes + EMO_CUDA_ALIGN) / EMO_CUDA_ALIGN * EMO_CUDA_ALIGN, *most = &tape->kind->values.size[i];
    *most = room > *most ? room : *most;
    at = tape->values_used;
    tape->values_used = at + *most;
    tape->values_most = tape->values_used > tape->values_most ? tape->values_used : tape->values_most;
    out->room = *most;
    if (emo_cuda_planning(exec)) {
        out->device = emo_cuda_no_address(exec->device, *most);
        return host_values(tape, *most, &out->host, err);
    }
    if (tape->values_room - at < *most) {
        tape->values_used = at;
        tape->values_wanted = 2 * (at + *most);
        memset(out, 0, sizeof *out);
        return emo_cuda_tape_issue(exec, "it has more host data than there is room for", err);
    }
    out->host = tape->values + at;
    out->device = (char *)tape->device_values + at;
    return EMO_OK;
}

int64_t emo_cuda_capacity(emo_exec *exec, int32_t kind, int64_t count) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    if (e->holding == NULL)
        return count;
    int64_t *most = &e->capacity[kind];
    count = emo_cuda_rounded(count);
    *most = count > *most ? count : *most;
    return *most;
}

/* ---- scratch in checked builds ---- */

emo_status emo_cuda_tape_scratch(emo_cuda_exec *exec, size_t bytes, void **out, emo_error *err) {
    wants *w = &exec->tape->kind->scratch;
    size_t i;
    if (!next_want(exec->tape, w, &i))
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for the scratch of a piece");
    if (w->ptr[i] == NULL || w->size[i] != bytes) {
        emo_cuda_free(exec->device, w->ptr[i]);
        w->ptr[i] = NULL;
        EMO_CUDA_TRY(emo_cuda_alloc(exec->device, bytes, &w->ptr[i], err));
        w->size[i] = bytes;
    }
    *out = w->ptr[i];
    return EMO_OK;
}

/* ---- enqueuing ---- */

static emo_status issue_entries(emo_tape *tape, emo_error *err) {
    for (size_t at = 0; at < tape->used;) {
        const header *h = (const header *)(tape->bytes + at);
        EMO_CUDA_TRY(emo_cuda_check(h->issue(h + 1, tape->exec->stream), h->what, err));
        at += h->size;
    }
    return EMO_OK;
}

/* Nothing is held back from here on. */
static void stop_holding(emo_tape *tape) {
    tape->exec->holding = NULL;
    emo_cuda_memory_settle(tape->exec->device);
}

static emo_status send_values(emo_tape *tape, emo_error *err) {
    return emo_cuda_send(&tape->exec->base, tape->device_values, tape->values, tape->values_used, err);
}

emo_status emo_cuda_tape_issue(emo_cuda_exec *exec, const char *why, emo_error *err) {
    emo_tape *tape = exec->holding;
    if (tape == NULL)
        return EMO_OK;
    if (emo_cuda_planning(exec)) {
        stop_holding(tape);
        return EMO_OK;
    }
    exec->holding = NULL; /* what is enqueued below goes to the stream */
    emo_status status = send_values(tape, err);
    if (status == EMO_OK)
        status = issue_entries(tape, err);
    stop_holding(tape);
    tape->counts.plain++;
    say(tape, EMO_LOG_DEBUG, "a piece of work is not held back to its end: ", why);
    return status;
}

static uint64_t hash_of(const emo_tape *tape) {
    uint64_t h = tape->key * 0x9e3779b97f4a7c15u + tape->used;
    for (size_t at = 0; at < tape->used; at += 8) {
        uint64_t word;
        memcpy(&word, tape->bytes + at, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

static void drop(emo_tape *tape, graph *g) {
    if (g->exec != NULL)
        (void)cudaGraphExecDestroy(g->exec);
    host_free(tape, g->bytes);
    memset(g, 0, sizeof *g);
}

static graph *find(emo_tape *tape, uint64_t hash) {
    for (int32_t i = 0; i < GRAPHS; i++) {
        graph *g = &tape->graphs[i];
        if (g->exec != NULL && g->hash == hash && g->key == tape->key && g->size == tape->used &&
            memcmp(g->bytes, tape->bytes, tape->used) == 0)
            return g;
    }
    return NULL;
}

/* The entries as a graph, in the place of the one that was not used for longest. */
static emo_status record(emo_tape *tape, uint64_t hash, graph **out, emo_error *err) {
    cudaStream_t stream = tape->exec->stream;
    cudaGraph_t recorded = NULL;
    graph *g = &tape->graphs[0];
    for (int32_t i = 1; i < GRAPHS && g->exec != NULL; i++)
        if (tape->graphs[i].exec == NULL || tape->graphs[i].last < g->last)
            g = &tape->graphs[i];
    drop(tape, g);
    *out = g;
    /* Of this thread alone: what others do on the device meanwhile is their own affair. */
    EMO_CUDA_TRY(emo_cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                                "cudaStreamBeginCapture", err));
    emo_status status = issue_entries(tape, err);
    cudaError_t ended = cudaStreamEndCapture(stream, &recorded);
    if (status == EMO_OK)
        status = emo_cuda_check(ended, "cudaStreamEndCapture", err);
    if (status == EMO_OK)
        status = emo_cuda_check(cudaGraphInstantiate(&g->exec, recorded, 0), "cudaGraphInstantiate", err);
    if (recorded != NULL)
        (void)cudaGraphDestroy(recorded);
    if (status == EMO_OK) {
        g->bytes = (char *)host_alloc(tape, tape->used);
        if (g->bytes == NULL)
            status = emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for a graph's description");
    } else {
        g->exec = NULL;
    }
    if (status != EMO_OK) {
        drop(tape, g);
        return status;
    }
    memcpy(g->bytes, tape->bytes, tape->used);
    g->size = tape->used;
    g->hash = hash;
    g->key = tape->key;
    return EMO_OK;
}

static int was_seen(const emo_tape *tape, uint64_t hash) {
    for (uint64_t i = 0; i < SEEN && i < tape->n_seen; i++)
        if (tape->seen[i] == hash)
            return 1;
    return 0;
}

static emo_status finish(emo_tape *tape, emo_error *err) {
    EMO_CUDA_TRY(send_values(tape, err));
    uint64_t hash = hash_of(tape);
    graph *g = tape->off ? NULL : find(tape, hash);
    int known = g != NULL;
    if (g == NULL && !tape->off && was_seen(tape, hash)) {
        emo_error why = EMO_ERROR_INIT;
        if (record(tape, hash, &g, &why) != EMO_OK) {
            (void)cudaGetLastError();
            g = NULL;
            tape->off = 1;
            say(tape, EMO_LOG_WARNING,
                "no graph could be made of the work on the device, which is launched piece by "
                "piece from here on: ",
                why.message);
        }
    }
    if (g == NULL) {
        tape->seen[tape->n_seen++ % SEEN] = hash;
        tape->counts.plain++;
        return issue_entries(tape, err);
    }
    g->last = ++tape->uses;
    tape->counts.recorded += !known;
    tape->counts.replayed += known;
    return emo_cuda_check(cudaGraphLaunch(g->exec, tape->exec->stream), "cudaGraphLaunch", err);
}

/* ---- pieces ---- */

static emo_status kind_of(emo_tape *tape, uint64_t key, emo_error *err) {
    piece_kind *k = tape->kinds;
    while (k != NULL && k->key != key)
        k = k->next;
    if (k == NULL) {
        void *fresh = NULL;
        EMO_CUDA_TRY(emo_cuda_host_zeroed(tape->exec, sizeof *k, &fresh, err));
        k = (piece_kind *)fresh;
        k->key = key;
        k->next = tape->kinds;
        tape->kinds = k;
    }
    tape->kind = k;
    return EMO_OK;
}

static emo_status values_room(emo_tape *tape, size_t wanted, emo_error *err) {
    if (wanted <= tape->values_room)
        return EMO_OK;
    void *values = NULL, *device = NULL;
    EMO_CUDA_TRY(emo_cuda_host_zeroed(tape->exec, wanted, &values, err));
    emo_status status = emo_cuda_alloc(tape->exec->device, wanted, &device, err);
    if (status != EMO_OK) {
        host_free(tape, values);
        return status;
    }
    host_free(tape, tape->values);
    emo_cuda_free(tape->exec->device, tape->device_values);
    tape->values = (char *)values;
    tape->device_values = device;
    tape->values_room = wanted;
    return EMO_OK;
}

static emo_status tape_of(emo_cuda_exec *e, emo_error *err) {
    if (e->tape != NULL)
        return EMO_OK;
    void *tape = NULL;
    EMO_CUDA_TRY(emo_cuda_host_zeroed(e, sizeof *e->tape, &tape, err));
    e->tape = (emo_tape *)tape;
    e->tape->exec = e;
    return EMO_OK;
}

emo_status emo_cuda_replay_reserve(emo_exec *exec, size_t bytes, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    EMO_CUDA_TRY(emo_cuda_tape_issue(e, "room is reserved", err));
    EMO_CUDA_TRY(tape_of(e, err));
    if (emo_cuda_planning(e)) {
        emo_cuda_free(e->device, e->tape->device_values);
        e->tape->device_values = NULL;
        return emo_cuda_alloc(e->device, bytes, &e->tape->device_values, err);
    }
    EMO_CUDA_TRY(values_room(e->tape, bytes, err));
    e->tape->fixed = 1;
    return EMO_OK;
}

emo_status emo_cuda_replay_begin(emo_exec *exec, uint64_t key, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    EMO_CUDA_TRY(emo_cuda_tape_issue(e, "another piece begins", err));
    EMO_CUDA_TRY(tape_of(e, err));
    emo_tape *tape = e->tape;
    if (emo_cuda_capturing(e)) /* the host records a graph of its own */
        return EMO_OK;
    if (!tape->fixed && !emo_cuda_planning(e))
        EMO_CUDA_TRY(values_room(tape, tape->values_wanted > FIRST_VALUES ? tape->values_wanted : FIRST_VALUES, err));
    EMO_CUDA_TRY(kind_of(tape, key, err));
    tape->open = 1;
    tape->key = key;
    tape->used = 0;
    tape->values_used = 0;
    tape->counts.pieces++;
    tape->kind->values.at = tape->kind->scratch.at = 0;
    e->piece++;
    e->holding = tape;
    emo_cuda_memory_hold(e->device);
    return EMO_OK;
}

emo_status emo_cuda_replay_end(emo_exec *exec, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    emo_tape *tape = e->tape;
    if (tape == NULL || !tape->open)
        return EMO_OK;
    tape->open = 0;
    if (e->holding == NULL)
        return EMO_OK;
    e->holding = NULL;
    emo_status status = emo_cuda_planning(e) ? EMO_OK : finish(tape, err);
    stop_holding(tape);
    return status;
}

void emo_cuda_replay_counts(const emo_exec *exec, emo_replay_counts *out) {
    const emo_tape *tape = ((const emo_cuda_exec *)exec)->tape;
    if (tape == NULL)
        return;
    *out = tape->counts;
    out->bytes = (int64_t)tape->values_most;
}

/* The exec's work is done. */
void emo_cuda_tape_destroy(emo_cuda_exec *exec) {
    emo_tape *tape = exec->tape;
    if (tape == NULL)
        return;
    for (int32_t i = 0; i < GRAPHS; i++)
        drop(tape, &tape->graphs[i]);
    while (tape->kinds != NULL) {
        piece_kind *k = tape->kinds;
        tape->kinds = k->next;
        for (size_t i = 0; i < k->scratch.count; i++)
            emo_cuda_free(exec->device, k->scratch.ptr[i]);
        host_free(tape, k->scratch.ptr);
        host_free(tape, k->scratch.size);
        host_free(tape, k->values.ptr);
        host_free(tape, k->values.size);
        host_free(tape, k);
    }
    emo_cuda_free(exec->device, tape->device_values);
    host_free(tape, tape->values);
    host_free(tape, tape->bytes);
    exec->tape = NULL;
    host_free(tape, tape);
}
