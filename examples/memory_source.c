/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model inside a game's pak file, read through the host's own functions, in the host's memory, on the host's threads:
 *     memory_source PAK MEBIBYTES "Once upon a time"
 * The pak is three lines of sizes, an empty line, and the files:
 *     for f in config.json tokenizer.json model.safetensors; do echo "$f $(stat -c %s $f)"; done >pak
 *     echo >>pak && cat config.json tokenizer.json model.safetensors >>pak
 * Memory is the host's too, with a hard cap: what would exceed it ends with EMO_E_OUT_OF_MEMORY.
 */
#include <emo/emo.h>

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CONFIG, TOKENIZER, WEIGHTS, ENTRIES };
typedef struct entry {
    int fd;
    uint64_t begin, size;
} entry;

/* ---- The host's storage: libemo reads what it needs, from several threads if it likes ---- */
static emo_status entry_size(void *ctx, uint64_t *size) {
    *size = ((const entry *)ctx)->size;
    return EMO_OK;
}
static emo_status entry_read(void *ctx, uint64_t offset, void *data, size_t size) {
    const entry *e = ctx;
    for (size_t done = 0; done < size;) {
        const ssize_t n = pread(e->fd, (char *)data + done, size - done, (off_t)(e->begin + offset + done));
        if (n <= 0)
            return EMO_E_IO;
        done += (size_t)n;
    }
    return EMO_OK;
}
/* ---- The host's memory ---- */
typedef struct heap {
    atomic_size_t used;
    size_t most;
} heap;
static void *heap_alloc(void *ctx, size_t size, size_t alignment) {
    heap *h = ctx;
    void *ptr = NULL;
    if (atomic_fetch_add(&h->used, size) + size > h->most ||
        posix_memalign(&ptr, alignment < sizeof(void *) ? sizeof(void *) : alignment, size) != 0) {
        atomic_fetch_sub(&h->used, size);
        return NULL;
    }
    return ptr;
}
static void heap_free(void *ctx, void *ptr, size_t size, size_t alignment) {
    (void)alignment; /* the size comes back with the pointer: no header is needed */
    atomic_fetch_sub(&((heap *)ctx)->used, size);
    free(ptr);
}
/* ---- The host's threads: an engine would hand the pieces to its job system ---- */
typedef struct job {
    atomic_size_t next;
    size_t count;
    emo_task_fn fn;
    void *task;
} job;
static void work(job *j, size_t worker) {
    for (size_t i = atomic_fetch_add(&j->next, 1); i < j->count; i = atomic_fetch_add(&j->next, 1))
        j->fn(j->task, i, worker);
}
static void *helper(void *opaque) { return work(opaque, 1), NULL; }
static void host_parallel_for(void *ctx, size_t count, emo_task_fn fn, void *task) {
    (void)ctx;
    job j = {0, count, fn, task};
    pthread_t thread;
    const int rc = pthread_create(&thread, NULL, helper, &j);
    work(&j, 0);
    if (rc == 0)
        pthread_join(thread, NULL);
}
static int open_pak(int fd, entry pak[ENTRIES]) {
    char head[512] = {0};
    int end = 0;
    if (pread(fd, head, sizeof head - 1, 0) < 0 ||
        sscanf(head, "config.json %" SCNu64 " tokenizer.json %" SCNu64 " model.safetensors %" SCNu64 "%n",
               &pak[CONFIG].size, &pak[TOKENIZER].size, &pak[WEIGHTS].size, &end) != ENTRIES)
        return 0;
    for (int i = 0; i < ENTRIES; i++) /* the first one behind two newlines */
        pak[i] = (entry){fd, i == 0 ? (uint64_t)end + 2 : pak[i - 1].begin + pak[i - 1].size, pak[i].size};
    return 1;
}

static emo_status talk(emo_runtime *rt, entry *pak, const char *config, const char *prompt, emo_error *err) {
    emo_source *vocabulary = NULL, *weights = NULL;
    emo_tokenizer *tokenizer = NULL;
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_source_vtable vtable = EMO_SOURCE_VTABLE_INIT; /* map stays NULL: what is wanted is read into memory */
    vtable.size = entry_size;
    vtable.read_at = entry_read;

    EMO_TRY(emo_source_create(rt, &vtable, &pak[TOKENIZER], &vocabulary, err));
    EMO_TRY(emo_source_create(rt, &vtable, &pak[WEIGHTS], &weights, err));
    EMO_TRY(emo_tokenizer_load_source(rt, vocabulary, &tokenizer, err));
    EMO_TRY(emo_model_load_sources(rt, config, (size_t)pak[CONFIG].size, &weights, 1, NULL, &model, err));
    EMO_TRY(emo_model_set_tokenizer(model, tokenizer, err));
    options.max_tokens = 40;
    EMO_TRY(emo_session_create(model, &options, &session, err));
    EMO_TRY(emo_session_append_text(session, prompt, err));
    for (emo_state state = EMO_STATE_PENDING; state != EMO_STATE_DONE;) {
        EMO_TRY(emo_session_advance(session, NULL, &state, err));
        fputs(emo_session_text(session), stdout);
    }
    printf("\n");
done: /* in any order: the model keeps its source alive */
    emo_source_release(vocabulary);
    emo_source_release(weights);
    emo_session_release(session);
    emo_model_release(model);
    emo_tokenizer_release(tokenizer);
    return err->code;
}

int main(int argc, char **argv) {
    entry pak[ENTRIES];
    char config[8192];
    const int fd = argc == 4 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0 || !open_pak(fd, pak) || pak[CONFIG].size > sizeof config ||
        entry_read(&pak[CONFIG], 0, config, (size_t)pak[CONFIG].size) != EMO_OK) {
        fprintf(stderr, "usage: %s PAK MEBIBYTES PROMPT\n", argv[0]);
        return 2;
    }
    heap memory = {0, (size_t)strtoul(argv[2], NULL, 10) << 20};
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.allocator = (emo_allocator){&memory, heap_alloc, heap_free};
    options.executor = (emo_executor){NULL, 2, host_parallel_for};
    emo_status status = emo_runtime_create(&options, &rt, &err);
    if (status == EMO_OK)
        status = talk(rt, pak, config, argv[3], &err);
    if (status != EMO_OK)
        fprintf(stderr, "%s: %s\n", emo_status_name(status), err.message);
    emo_runtime_release(rt);
    close(fd);
    return status == EMO_OK && atomic_load(&memory.used) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
