/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model on a small machine: only a mask's experts are ever read, as bf16; they share a place for EXPERT_KIBIBYTES of
 * them, read when they are asked for, and everything the library holds stays below a hard cap, which it meets with a
 * status, not with a crash:
 *     edge_subset MODEL_FOLDER MASK_FILE KIBIBYTES EXPERT_KIBIBYTES "A fever in small children"
 */
#include <emo/emo.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* The cap. Any of the library's threads may call these. */
typedef struct cap {
    atomic_size_t used;
    atomic_size_t peak;
    size_t most;
} cap;

static void *cap_alloc(void *ctx, size_t size, size_t alignment) {
    cap *c = ctx;
    const size_t used = atomic_fetch_add(&c->used, size) + size;
    if (used > c->most) {
        atomic_fetch_sub(&c->used, size);
        return NULL; /* the call that needed it returns EMO_E_OUT_OF_MEMORY, and everything stays usable */
    }
    void *ptr = NULL;
    if (posix_memalign(&ptr, alignment < sizeof(void *) ? sizeof(void *) : alignment, size) != 0) {
        atomic_fetch_sub(&c->used, size);
        return NULL;
    }
    size_t peak = atomic_load(&c->peak);
    while (used > peak && !atomic_compare_exchange_weak(&c->peak, &peak, used)) {
    }
    return ptr;
}

static void cap_free(void *ctx, void *ptr, size_t size, size_t alignment) {
    (void)alignment;
    atomic_fetch_sub(&((cap *)ctx)->used, size);
    free(ptr);
}

static emo_status talk(emo_runtime *rt, char **argv, emo_error *err) {
    emo_mask *mask = NULL;
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_cache_stats cache = EMO_CACHE_STATS_INIT;

    EMO_TRY(emo_mask_load(rt, argv[2], &mask, err));
    load.subset = mask;          /* the other experts are never read */
    load.dtype = EMO_DTYPE_BF16; /* half of the memory of f32 */
    load.no_map = 1;             /* into memory that the cap counts; a mapped file is the system's to drop and reload */
    load.memory_budget = (uint64_t)strtoul(argv[4], NULL, 10) * 1024; /* for the mask's experts, beside the rest */
    load.drop_source = 1; /* nor does what was read of the file fill the system's memory */
    EMO_TRY(emo_model_load_path(rt, argv[1], &load, &model, err));
    EMO_TRY(emo_model_get_info(model, &info, err));
    printf("%d of %d parameters loaded\n", (int)info.loaded, (int)info.parameters);

    options.capacity = 128; /* the KV cache never grows beyond so many tokens */
    options.max_tokens = 40;
    EMO_TRY(emo_session_create(model, &options, &session, err));
    EMO_TRY(emo_session_append_text(session, argv[5], err));
    for (emo_state state = EMO_STATE_PENDING; state != EMO_STATE_DONE;) {
        EMO_TRY(emo_session_advance(session, NULL, &state, err));
        fputs(emo_session_text(session), stdout);
    }
    EMO_TRY(emo_model_get_cache_stats(model, &cache, err));
    printf("\n%d experts in room for %d: %d asked for were there, %d were read, %.1f ms of waiting\n",
           (int)cache.experts, (int)cache.capacity, (int)cache.hits, (int)cache.misses, (double)cache.stall_ns * 1e-6);
done:
    emo_session_release(session);
    emo_model_release(model);
    emo_mask_release(mask);
    return err->code;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: %s MODEL_FOLDER MASK_FILE KIBIBYTES EXPERT_KIBIBYTES PROMPT\n", argv[0]);
        return 2;
    }
    cap memory = {0, 0, (size_t)strtoul(argv[3], NULL, 10) * 1024};
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = 1;
    options.allocator = (emo_allocator){&memory, cap_alloc, cap_free};
    emo_status status = emo_runtime_create(&options, &rt, &err);
    if (status == EMO_OK)
        status = talk(rt, argv, &err);
    if (status != EMO_OK)
        fprintf(stderr, "%s: %s\n", emo_status_name(status), err.message);
    emo_runtime_release(rt);
    printf("peak %zu KiB of %zu, %zu bytes left behind\n", atomic_load(&memory.peak) / 1024, memory.most / 1024,
           atomic_load(&memory.used));
    return status == EMO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
