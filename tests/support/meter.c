/* SPDX-License-Identifier: Apache-2.0 */
#include "support/meter.h"

#include <dirent.h>
#include <malloc.h>
#include <time.h>

#define MAGIC 0x656d6f6d65746572u

typedef struct header {
    uint64_t magic;
    size_t size;
    size_t alignment;
} header;

/* What stands in front of a block; one unit of its alignment, so that the block stays aligned. */
static size_t room(size_t alignment) { return alignment > sizeof(header) ? alignment : 2 * sizeof(header); }

static void *meter_alloc(void *ctx, size_t size, size_t alignment) {
    meter *m = ctx;
    long call = atomic_fetch_add(&m->calls, 1);
    if (size == 0 || alignment == 0 || (alignment & (alignment - 1)) != 0)
        atomic_fetch_add(&m->odd, 1);
    if (m->fail_at >= 0 && (call == m->fail_at || (m->sticky != 0 && call > m->fail_at))) {
        atomic_fetch_add(&m->refused, 1);
        return NULL;
    }
    void *ptr = NULL;
    if (posix_memalign(&ptr, alignment < sizeof(void *) ? sizeof(void *) : alignment, size + room(alignment)) != 0)
        return NULL;
    header h = {MAGIC, size, alignment};
    char *block = (char *)ptr + room(alignment);
    memcpy(block - sizeof h, &h, sizeof h);
    memset(block, 0xa5, size); /* so that nobody relies on zeroes */
    atomic_fetch_add(&m->live, 1);
    atomic_fetch_add(&m->bytes, (long)size);
    return block;
}

static void meter_free(void *ctx, void *ptr, size_t size, size_t alignment) {
    meter *m = ctx;
    header h;
    memcpy(&h, (char *)ptr - sizeof h, sizeof h);
    if (h.magic != MAGIC || h.size != size || h.alignment != alignment) {
        atomic_fetch_add(&m->wrong, 1);
        return;
    }
    memset((char *)ptr - sizeof h, 0, sizeof h);
    atomic_fetch_sub(&m->live, 1);
    atomic_fetch_sub(&m->bytes, (long)size);
    free((char *)ptr - room(alignment));
}

void meter_arm(meter *m, long fail_at, int sticky) {
    atomic_store(&m->calls, 0);
    atomic_store(&m->refused, 0);
    m->fail_at = fail_at;
    m->sticky = sticky;
}

void meter_disarm(meter *m) { m->fail_at = -1; }

emo_allocator meter_hooks(meter *m) {
    emo_allocator hooks = {m, meter_alloc, meter_free};
    return hooks;
}

emo_runtime *meter_runtime(meter *m, int32_t threads) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    options.threads = threads;
    options.allocator = meter_hooks(m);
    EXPECT_OK(emo_runtime_create(&options, &rt, &err));
    return rt;
}

void meter_check(const meter *m, const char *what) {
    long live = atomic_load(&m->live);
    long wrong = atomic_load(&m->wrong);
    long odd = atomic_load(&m->odd);
    if (live != 0 || wrong != 0 || odd != 0)
        fail_msg("%s: %ld blocks left, %ld given back wrongly, %ld odd sizes or alignments", what, live, wrong, odd);
}

static int count_entries(const char *path) {
    DIR *dir = opendir(path);
    assert_non_null(dir);
    int n = 0;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

int count_fds(void) { return count_entries("/proc/self/fd"); }
int count_threads(void) { return count_entries("/proc/self/task"); }

int count_maps(void) {
    FILE *file = fopen("/proc/self/maps", "r");
    char line[4096];
    int n = 0;
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL)
        n += strchr(line, '/') != NULL;
    (void)fclose(file);
    return n;
}

size_t heap_in_use(void) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    return mallinfo2().uordblks;
#else
    return 0;
#endif
}

int settled_threads(int expected) {
    const struct timespec pause = {0, 1000000};
    int now = count_threads();
    for (int i = 0; i < 2000 && now != expected; i++) {
        (void)nanosleep(&pause, NULL);
        now = count_threads();
    }
    return now;
}
