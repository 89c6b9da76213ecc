/* SPDX-License-Identifier: Apache-2.0 */
/* What the expert cache did, in words and as JSON. */
#include "cli.h"

#include <sys/resource.h>

static int cache_stats(const emo_model *model, emo_cache_stats *stats) {
    static const emo_cache_stats none = EMO_CACHE_STATS_INIT;
    *stats = none;
    return emo_model_get_cache_stats(model, stats, NULL) == EMO_OK && stats->capacity > 0;
}

static double hit_rate(const emo_cache_stats *s) {
    uint64_t asked = s->hits + s->misses;
    return asked > 0 ? (double)s->hits / (double)asked : 0.0;
}

/* The most memory the process had resident so far. */
static uint64_t peak_resident(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

void cli_cache_report(const emo_model *model) {
    emo_cache_stats s;
    if (cache_stats(model, &s))
        fprintf(stderr,
                "[%llu of %llu experts fit in %.2f GiB; %.1f %% were there when asked for, %llu read ahead; %.2f GiB "
                "read, %.2f s stood still; at most %.2f GiB resident]\n",
                (unsigned long long)s.capacity, (unsigned long long)s.experts,
                (double)s.bytes / (double)(UINT64_C(1) << 30), 100.0 * hit_rate(&s), (unsigned long long)s.read_ahead,
                (double)s.bytes_read / (double)(UINT64_C(1) << 30), (double)s.stall_ns * 1e-9,
                (double)peak_resident() / (double)(UINT64_C(1) << 30));
}

void json_cache(json_writer *json, const emo_model *model) {
    emo_cache_stats s;
    if (!cache_stats(model, &s))
        return;
    json_open(json, "cache");
    json_integer(json, "experts", (int64_t)s.experts);
    json_integer(json, "capacity", (int64_t)s.capacity);
    json_integer(json, "bytes", (int64_t)s.bytes);
    json_integer(json, "hits", (int64_t)s.hits);
    json_integer(json, "misses", (int64_t)s.misses);
    json_number(json, "hit_rate", hit_rate(&s));
    json_integer(json, "read_ahead", (int64_t)s.read_ahead);
    json_integer(json, "evictions", (int64_t)s.evictions);
    json_integer(json, "bytes_read", (int64_t)s.bytes_read);
    json_number(json, "read_seconds", (double)s.read_ns * 1e-9);
    json_number(json, "stall_seconds", (double)s.stall_ns * 1e-9);
    json_integer(json, "peak_resident_bytes", (int64_t)peak_resident());
    json_close(json);
}
