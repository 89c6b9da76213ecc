/* SPDX-License-Identifier: Apache-2.0 */
#include "support/mirror_call.h"

static int by_address(const void *a, const void *b) {
    const mirror_range *x = a, *y = b;
    return x->host < y->host ? -1 : x->host > y->host;
}

static void merge(mirror_call *c) {
    int kept = 0;
    qsort(c->ranges, (size_t)c->n, sizeof *c->ranges, by_address);
    for (int i = 0; i < c->n; i++) {
        mirror_range *last = kept > 0 ? &c->ranges[kept - 1] : NULL;
        mirror_range r = c->ranges[i];
        if (last != NULL && (r.host < last->host + last->bytes || r.host == last->host)) {
            size_t end = (size_t)(r.host - last->host) + r.bytes;
            last->bytes = end > last->bytes ? end : last->bytes;
            last->written |= r.written;
        } else {
            c->ranges[kept++] = r;
        }
    }
    c->n = kept;
}

void *mirror_exchange(mirror_call *c, const void *host, size_t bytes, int written) {
    char *p = (char *)(uintptr_t)host;
    if (p == NULL)
        return NULL;
    if (!c->translating) {
        assert_true(c->n < MIRROR_RANGES);
        c->ranges[c->n++] = (mirror_range){p, bytes, written, NULL};
        return p;
    }
    for (int i = 0; i < c->n; i++)
        if (p >= c->ranges[i].host && p + bytes <= c->ranges[i].host + c->ranges[i].bytes)
            return c->ranges[i].device + (p - c->ranges[i].host);
    fail_msg("a range of a mirrored call was not collected");
    return NULL;
}

emo_status mirror_to_device(mirror_call *c) {
    emo_status status = EMO_OK;
    merge(c);
    for (int i = 0; i < c->n && status == EMO_OK; i++) {
        void *device = NULL;
        status = c->ops->mem_alloc(c->exec->backend, c->ranges[i].bytes, &device, c->err);
        c->ranges[i].device = device;
        if (status == EMO_OK)
            status = c->ops->upload(c->exec, device, c->ranges[i].host, c->ranges[i].bytes, c->err);
    }
    c->translating = 1;
    return status;
}

emo_status mirror_to_host(mirror_call *c, emo_status status) {
    for (int i = 0; i < c->n && status == EMO_OK; i++)
        if (c->ranges[i].written)
            status = c->ops->download(c->exec, c->ranges[i].host, c->ranges[i].device, c->ranges[i].bytes, c->err);
    emo_status waited = c->ops->synchronize(c->exec, status == EMO_OK ? c->err : NULL);
    for (int i = 0; i < c->n; i++)
        c->ops->mem_free(c->exec->backend, c->ranges[i].device);
    free(c->slots);
    return status == EMO_OK ? waited : status;
}
